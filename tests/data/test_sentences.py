"""Paragraphs are divided into sentences in any script."""

import pytest

from prunejax.data import sentences


@pytest.mark.parametrize(
  'expected',
  [
    ['Straße führt weit.', 'Über den Fluss.'],
    ['Он пришёл.', 'Она ушла!', 'Куда?', 'Не знаю.'],
    ['Πού είναι\u037e', 'Εδώ.'],
    ['¿Dónde está?', '¡Aquí!', 'No sé.'],
    ['Il a dit «Non.»', 'Élise est partie.'],
    ['He said “Stop.”', 'Then he left.'],
    ['आज बारिश हुई।', 'कल धूप थी।'],
    ['ذهب الولد.', 'أين ذهب؟', 'لا أعرف.'],
    ['הילד הלך.', 'לאן הלך?'],
    ['오늘은 비가 왔다.', '내일은 맑겠다.'],
    ['ዛሬ ዘነበ።', 'ነገ ፀሐይ ነው።'],
  ],
)
def test_other_scripts(expected):
  assert sentences.split(' '.join(expected)) == expected


def test_signs_that_need_no_space():
  assert sentences.split('今天下雨了。明天呢？“不知道。”他说。') == [
    '今天下雨了。',
    '明天呢？',
    '“不知道。”',
    '他说。',
  ]


@pytest.mark.parametrize(
  'whole', ['Die Zahl 3.5 für alle.', 'Sie ging, z. b. über den Fluss.', 'für e.g. äußere Winkel.']
)
def test_no_boundary_before_a_small_letter(whole):
  assert sentences.split(whole) == [whole]


def test_ascii_text_is_divided_as_ever():
  text = 'He said "hi." Then (3) he left! 4 more came. and so on. '
  assert sentences.split(text) == ['He said "hi.', 'Then (3) he left!', '4 more came. and so on. ']
