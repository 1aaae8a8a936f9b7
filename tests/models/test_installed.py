"""Models that installed packages carry, found without an import."""

import pytest

from prunejax import __main__ as command
from prunejax.models import installed


@pytest.fixture
def install(tmp_path, monkeypatch):
  """install(name, {file: text}) makes a package that is on the path of Python."""
  monkeypatch.syspath_prepend(tmp_path)

  def make(name, texts):
    module = name.replace('-', '_')
    info = tmp_path / f'{module}-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
    for file, text in texts.items():
      path = tmp_path / module / file
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
    (info / 'RECORD').write_text(''.join(f'{module}/{file},,\n' for file in texts))
    return tmp_path / module

  return make


BROKEN = {'__init__.py': 'raise RuntimeError("imported")'}


def test_a_folder_or_a_gguf_file_is_found(install):
  home = install('tiny-words', {**BROKEN, 'm/model.safetensors': '', 'm/config.json': '{}'})
  assert installed.find('tiny-words') == installed.find('tiny_words') == home / 'm'
  home = install('tiny-gguf', {**BROKEN, 'a.gguf': ''})
  assert installed.find('tiny-gguf') == home / 'a.gguf'


def test_others_are_none_or_one_clear_error(install, capsys):
  install('tiny-nothing', BROKEN)
  install('tiny-two', {'a.gguf': '', 'b.gguf': ''})
  assert installed.find('tiny-absent') is None
  assert installed.find('/no/such/folder') is None and installed.find('') is None
  with pytest.raises(ValueError, match="'tiny-nothing' carries 0 models"):
    installed.find('tiny-nothing')
  with pytest.raises(ValueError, match=r"'tiny-two' carries 2 models .*a\.gguf, .*b\.gguf"):
    installed.find('tiny-two')
  assert command.main(['evaluate', 'numpy', '--on=wikitext:x']) == 2
  assert command.main(['evaluate', 'tiny-absent', '--on=wikitext:x']) == 2
  assert "'tiny-absent'" in capsys.readouterr().err
