"""Divides paragraphs into sentences, in any script."""

import re
import unicodedata

# A sentence ends with one of . ! ? and starts with a capital or a digit. Closing quotes between the
# two are dropped: the tokens of the embedded corpus, which is ASCII, depend on it.
_ASCII_BOUNDARY = re.compile(r'(?<=[.!?])["\')]*\s+(?=["\'(]*[A-Z0-9])')
# Signs that end a sentence if white space and the start of a sentence follow: . ! ? and the signs
# of Greek, Armenian, Arabic, Urdu and Ethiopic.
_ENDS_BEFORE_SPACE = '.!?…\u037e\u0589\u061f\u06d4\u1362\u1367'
# Signs that always end a sentence: of Chinese and Japanese, Devanagari, Khmer, Burmese and Tibetan.
_ENDS = '。！？｡।॥។៕။།'
_CLOSING = '"\'’”»›)\\]」』）】》'
_OPENING = '"\'‘“„«‹(\\[「『（【《¿¡'
_BOUNDARY = re.compile(
  rf'[{_ENDS_BEFORE_SPACE}][{_CLOSING}]*(?P<space>\s+)(?=[{_OPENING}]*(?P<first>[^\s{_OPENING}]))'
  rf'|[{_ENDS}]+[{_CLOSING}]*(?P<none>\s*)'
)


def split(paragraph: str) -> list[str]:
  """Divides a paragraph into sentences.

  In ASCII text, a sentence ends at . ! or ? before a capital or a digit. In other text it also ends
  at the signs of other scripts, and before a letter of a script without capitals.

  Args:
    paragraph: one line of text.

  Returns:
    The sentences, without white space around them; none is empty.
  """
  if paragraph.isascii():
    return [sentence for sentence in _ASCII_BOUNDARY.split(paragraph) if sentence]
  sentences, start = [], 0
  for match in _BOUNDARY.finditer(paragraph):
    if match['first'] is None or _may_start(match['first']):
      space = match.start('none' if match['first'] is None else 'space')
      sentences.append(paragraph[start:space].strip())
      start = match.end()
  sentences.append(paragraph[start:].strip())
  return [sentence for sentence in sentences if sentence]


def _may_start(character):
  """Whether a sentence may start so: a capital, a digit, or a letter that has no case."""
  return unicodedata.category(character) in ('Lu', 'Lt', 'Lo', 'Nd')
