"""Text from files: what is read, in which order, and what is refused."""

import gzip
import io
import lzma
import tarfile

import pytest

from prunejax.data import text_files

SHARD = (
  '<doc id="1" url="https://x.org/?curid=1" title="One">\n'
  'One\n\nFirst line.\nSecond line.\n\n</doc>\n'
  '<doc id="2" url="https://x.org/?curid=2" title="Two">\nTwo\n\nOnly line.\n</doc>\n'
  '<doc id="3" url="https://x.org/?curid=3" title="Empty">\n\n</doc>\n'
)
ARTICLES = ['One\nFirst line.\nSecond line.', 'Two\nOnly line.']


def read(folder):
  return list(text_files.documents(folder))


def tar(path, members, mode):
  with tarfile.open(path, mode) as archive:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))


def test_plain_files_in_order_of_their_paths(tmp_path):
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'x.txt').write_text('Last.')
  (tmp_path / 'a.txt').write_text('A novel wraps\nits lines.\n\n  And starts\nagain. \n')
  assert read(tmp_path) == ['A novel wraps its lines.\nAnd starts again.', 'Last.']


def test_extractor_shards_hold_many_documents(tmp_path):
  (tmp_path / 'AA').mkdir()
  (tmp_path / 'AA' / 'wiki_00').write_text(SHARD)
  assert read(tmp_path) == ARTICLES


@pytest.mark.parametrize('mode', ['w:xz', 'w:gz', 'w'])
def test_archives_are_read_as_streams(tmp_path, mode):
  suffix = {'w:xz': '.tar.xz', 'w:gz': '.tar.gz', 'w': '.tar'}[mode]
  tar(tmp_path / f'wiki{suffix}', {'AA/wiki_00': SHARD.encode(), 'AA/wiki_01': b'More.'}, mode)
  assert read(tmp_path) == [*ARTICLES, 'More.']
  assert [p.name for p in tmp_path.iterdir()] == [f'wiki{suffix}']


def test_single_files_packed(tmp_path):
  (tmp_path / 'a.txt.gz').write_bytes(gzip.compress(b'Zipped.'))
  (tmp_path / 'b.txt.xz').write_bytes(lzma.compress(b'Squeezed.'))
  assert read(tmp_path) == ['Zipped.', 'Squeezed.']
  assert read(tmp_path / 'a.txt.gz') == ['Zipped.']


@pytest.mark.parametrize(
  'raw',
  [
    b'\xef\xbb\xbfFirst.\r\n\r\nSecond\r\nline.\r\n',
    b'First.\n\nSecond\nline.',
    b'First.\n\n\nSecond line.',
  ],
)
def test_byte_order_mark_and_line_ends(tmp_path, raw):
  (tmp_path / 'a.txt').write_bytes(raw)
  assert read(tmp_path) == ['First.\nSecond line.']


def test_what_is_no_text_is_left_out(tmp_path):
  (tmp_path / '.hidden.txt').write_text('no')
  (tmp_path / '.git').mkdir()
  (tmp_path / '.git' / 'config').write_text('no')
  (tmp_path / 'photo.png').write_bytes(b'\x89PNG')
  (tmp_path / 'empty.txt').write_text('')
  tar(tmp_path / 'b.tar.xz', {'./._wiki_00': b'\0junk', './wiki_00': b'Member.'}, 'w:xz')
  (tmp_path / 'a.txt').write_text('Yes.')
  assert read(tmp_path) == ['Yes.', 'Member.']


def test_a_member_with_a_wicked_name_is_written_nowhere(tmp_path):
  inner = tmp_path / 'outer' / 'inner'
  inner.mkdir(parents=True)
  wicked = {'../evil': b'Read only.', '/tmp/prunejax-evil.txt': b'Read too.'}
  tar(inner / 'a.tar.xz', wicked, 'w:xz')
  before = sorted(tmp_path.rglob('*'))
  assert read(inner) == ['Read only.', 'Read too.']
  assert sorted(tmp_path.rglob('*')) == before


def test_links_inside_an_archive_are_not_followed(tmp_path):
  secret = tmp_path / 'secret'
  secret.write_text('Not for you.')
  folder = tmp_path / 'text'
  folder.mkdir()
  with tarfile.open(folder / 'a.tar', 'w') as archive:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
      info = tarfile.TarInfo('link')
      info.type, info.linkname = kind, str(secret)
      archive.addfile(info)
  assert read(folder) == []


def damaged():
  noise = bytes(range(256)) * 40
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:xz') as archive:
    info = tarfile.TarInfo('wiki_00')
    info.size = len(noise)
    archive.addfile(info, io.BytesIO(noise))
  packed, zipped, squeezed = buffer.getvalue(), gzip.compress(noise), lzma.compress(noise)
  return {
    'cut.tar.xz': packed[: len(packed) // 2],
    'torn.tar.xz': packed[:40] + b'\xff' * 8 + packed[48:],
    'not.tar.xz': b'plain text',
    'not.tar': b'plain text, no archive',
    'not.tgz': noise,
    'cut.txt.gz': zipped[: len(zipped) // 2],
    'torn.txt.gz': zipped[:30] + b'\xff' * 8 + zipped[38:],
    'not.gz': b'plain text',
    'cut.txt.xz': squeezed[: len(squeezed) // 2],
    'not.xz': b'plain text',
  }


@pytest.mark.parametrize('name', damaged())
def test_a_damaged_archive_is_named(tmp_path, name):
  (tmp_path / name).write_bytes(damaged()[name])
  with pytest.raises(ValueError, match=f'{name}: not a readable archive'):
    read(tmp_path)


def test_no_folder_and_no_text_say_what_is_expected(tmp_path):
  with pytest.raises(FileNotFoundError, match='missing.*expected a folder of text'):
    read(tmp_path / 'missing')
  (tmp_path / 'a.png').write_bytes(b'')
  with pytest.raises(FileNotFoundError, match='holds no text: expected .txt files'):
    read(tmp_path)


def test_the_fingerprint_follows_names_and_sizes(tmp_path):
  (tmp_path / 'a.txt').write_text('One.')
  first = text_files.fingerprint(tmp_path)
  assert first == text_files.fingerprint(tmp_path) == [['a.txt', 4]]
  (tmp_path / 'a.txt').write_text('Other.')
  assert text_files.fingerprint(tmp_path) != first
