"""Text from files: what is read, in which order, and what is refused."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import time
import tracemalloc

import pytest

from prunejax.data import corpus, text_files

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


def test_files_that_are_not_text_are_left_out(tmp_path):
  (tmp_path / '.hidden.txt').write_text('no')
  (tmp_path / '.git').mkdir()
  (tmp_path / '.git' / 'config').write_text('no')
  (tmp_path / 'photo.png').write_bytes(b'\x89PNG')
  (tmp_path / 'empty.txt').write_text('')
  tar(tmp_path / 'b.tar.xz', {'./._wiki_00': b'\0junk', './wiki_00': b'Member.'}, 'w:xz')
  (tmp_path / 'a.txt').write_text('Yes.')
  assert read(tmp_path) == ['Yes.', 'Member.']


def test_a_member_with_a_hostile_name_is_written_nowhere(tmp_path):
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


def test_the_fingerprint_follows_names_and_content(tmp_path):
  (tmp_path / 'a.txt').write_text('One.')
  status = (tmp_path / 'a.txt').stat()
  first = text_files.fingerprint(tmp_path)
  assert first == text_files.fingerprint(tmp_path)
  (tmp_path / 'a.txt').write_text('Two.')  # of the same size, and of the same time
  os.utime(tmp_path / 'a.txt', ns=(status.st_atime_ns, status.st_mtime_ns))
  assert text_files.fingerprint(tmp_path) != first
  (tmp_path / 'a.txt').write_text('One.')
  assert text_files.fingerprint(tmp_path) == first
  (tmp_path / 'a.txt').rename(tmp_path / 'b.txt')
  assert text_files.fingerprint(tmp_path) != first


# ---- encodings


@pytest.mark.parametrize('name', ['a.txt', 'a.txt.gz', 'a.tar'])
def test_bytes_that_are_not_text_are_named_with_their_position(tmp_path, name):
  data = b'x' * 2**20 + b'\n' + 'Straße führt'.encode('latin-1')
  if name.endswith('.tar'):
    tar(tmp_path / name, {'inner.txt': data}, 'w')
  else:
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
  with pytest.raises(ValueError, match=rf'{name}.*byte {2**20 + 5} is not text.*data.encoding'):
    read(tmp_path)
  assert list(text_files.documents(tmp_path, encoding='latin-1'))[0].endswith(' Straße führt')


@pytest.mark.parametrize(
  ('start', 'end', 'position'),
  [
    (b'', b'a\xff', 1),
    (b'\xef\xbb\xbf', b'a\xff', 4),
    (b'x' * (2**18 - 1), b'\xc3', 2**18 - 1),  # a character that the end of the file cuts
    (b'x' * (2**18 - 1), b'\xc3\x28', 2**18 - 1),  # one over the border of two pieces
  ],
)
def test_the_position_counts_bytes_of_the_file(tmp_path, start, end, position):
  (tmp_path / 'a.txt').write_bytes(start + end)
  with pytest.raises(ValueError, match=rf'a.txt: byte {position} is not text in utf-8'):
    read(tmp_path)


def test_other_encodings(tmp_path):
  (tmp_path / 'a.txt').write_text('Ärger.\n\nÜber.', encoding='utf-16')
  assert list(text_files.documents(tmp_path, encoding='UTF-16')) == ['Ärger.\nÜber.']
  for encoding in ('no-such', 'hex', 'rot13'):
    with pytest.raises(ValueError, match=f"data.encoding='{encoding}': expected a text encoding"):
      list(text_files.documents(tmp_path, encoding=encoding))


# ---- one file


def test_one_file_is_divided_at_blank_lines(tmp_path):
  path = tmp_path / 'corpus.txt'
  path.write_text('One.\nTwo.\n\n\nThree.\n \nFour.\r\nFive.\n')
  divided = ['One.\nTwo.', 'Three.', 'Four.\nFive.']
  for place in (path, tmp_path):
    assert list(text_files.documents(place, divide=True)) == divided
  assert read(path) == ['One. Two.\nThree.\nFour. Five.']
  (tmp_path / 'other.txt').write_text('Six.')  # a folder of files: each is a document
  assert list(text_files.documents(tmp_path, divide=True)) == [*read(path), 'Six.']


@pytest.mark.parametrize('pack', ['', '.gz', '.xz', '.bz2', '.BZ2', '.tar.bz2'])
def test_lines_of_json_packed_or_not(tmp_path, pack):
  data = b'{"id": 1, "text": "One.\\n\\nTwo."}\n\n{"text": "Three."}\n{"text": ""}'
  pack_data = {'.gz': gzip.compress, '.xz': lzma.compress, '.bz2': bz2.compress}
  if pack == '.tar.bz2':
    tar(tmp_path / f'a{pack}', {'in.JSONL': data}, 'w:bz2')
  else:
    (tmp_path / f'a.jsonl{pack}').write_bytes(pack_data.get(pack.lower(), bytes)(data))
  assert read(tmp_path) == ['One.\nTwo.', 'Three.']


@pytest.mark.parametrize('line', ['{"body": "x"}', '["text"]', '{"text": 3}', '{', '[' * 100_000])
def test_a_line_that_is_no_document_is_named(tmp_path, line):
  (tmp_path / 'a.jsonl').write_text('{"text": "Fine."}\n' + line)
  with pytest.raises(ValueError, match='a.jsonl, line 2: expected a JSON object with a string'):
    read(tmp_path)


@pytest.mark.parametrize('name', ['A.TXT', 'a.Text', 'B.TXT.GZ'])
def test_suffixes_of_any_case(tmp_path, name):
  data = b'Read.'
  (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('GZ') else data)
  assert read(tmp_path) == ['Read.']


# ---- hostile and damaged files


def header(name='a', size=0, kind=tarfile.REGTYPE):
  info = tarfile.TarInfo(name)
  info.size, info.type = size, kind
  return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)


@pytest.mark.parametrize('kind', [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize('pack', ['.tar.gz', '.tar', ''])
@pytest.mark.parametrize('size', [2**26, 2**33])
def test_a_header_cannot_ask_for_all_memory(tmp_path, kind, pack, size):
  start = header(size=size, kind=kind)
  path = tmp_path / f'a{pack}'
  if pack == '.tar.gz':
    with gzip.open(path, 'wb') as stream:
      stream.write(start)
      for _ in range(4):
        stream.write(bytes(2**24))
  else:
    path.write_bytes(start + END)
  tracemalloc.start()
  with pytest.raises(ValueError, match=f'a{pack}: not a readable archive .*asks for {size} bytes'):
    read(tmp_path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 2**25


def test_damaged_archives_are_refused(tmp_path):
  tar(tmp_path / 'a.tar', {f'{i}.txt': b'x' * 100 for i in range(10)}, 'w')
  whole = (tmp_path / 'a.tar').read_bytes()
  assert len(read(tmp_path)) == 10
  for cut in (1024, 5 * 1024, 5 * 1024 + 512, 5 * 1024 + 700, 9 * 1024 + 100):
    (tmp_path / 'a.tar').write_bytes(whole[:cut])
    with pytest.raises(ValueError, match='a.tar: not a readable archive'):
      read(tmp_path)
  (tmp_path / 'a.tar').write_bytes(whole[: 3 * 1024] + b'\xff' * 512 + whole[3 * 1024 + 512 :])
  with pytest.raises(ValueError, match='its end is missing or damaged'):
    read(tmp_path)
  for size in (-1, -512, -1024):
    (tmp_path / 'a.tar').write_bytes(whole[:1024] + header(size=size) + END)
    with pytest.raises(ValueError, match=f'a has the size {size}'):
      read(tmp_path)


@pytest.mark.parametrize('suffix', ['.gz', '.xz', '.bz2', '.tar', '.tar.gz'])
def test_an_empty_archive_is_refused(tmp_path, suffix):
  (tmp_path / f'a{suffix}').write_bytes(b'')
  with pytest.raises(ValueError, match=f'a{suffix}: not a readable archive'):
    read(tmp_path)


@pytest.mark.parametrize(
  'text',
  ['<doc >' * 300_000, '<doc >\n' * 300_000, '<doc ' * 300_000, '<doc >a</doc>' * 300_000],
  ids=['open tags', 'lines', 'open brackets', 'one line'],
)
def test_a_shard_takes_linear_time(tmp_path, text):
  (tmp_path / 'a.txt').write_text(text)
  start = time.process_time()
  if '>' in text and '</doc>' not in text:
    with pytest.raises(ValueError, match='a.txt: document 1 has no </doc>; the file may be cut'):
      read(tmp_path)
  else:
    read(tmp_path)
  assert time.process_time() - start < 5  # quadratic: many minutes


def test_a_shard_that_is_cut_off_is_refused(tmp_path):
  (tmp_path / 'wiki_00').write_text(SHARD[: SHARD.index('Only line')])
  with pytest.raises(ValueError, match='wiki_00: document 2 has no </doc>'):
    read(tmp_path)
  (tmp_path / 'wiki_00').write_text('<doc id="1">One.</doc><doc id="2">Two.\nMore.</doc> ')
  assert read(tmp_path) == ['One.', 'Two.\nMore.']


def test_many_documents_of_one_file_do_not_take_its_size(tmp_path):
  line = json.dumps({'text': 'word ' * 200}) + '\n'
  (tmp_path / 'a.jsonl').write_text(line * (2**23 // len(line)))
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'b.txt').write_text('<doc >\nSome words of it.\n</doc>\n' * 2**17)
  for path in (tmp_path / 'a.jsonl', tmp_path / 'b'):
    tracemalloc.start()
    count = sum(1 for _ in text_files.documents(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 8_000 and peak < 2**22


def test_links_out_of_the_folder_are_refused(tmp_path):
  (tmp_path / 'secret').write_text('Not for you.')
  folder = tmp_path / 'text'
  folder.mkdir()
  (folder / 'a.txt').write_text('One.')
  (folder / 'b.txt').symlink_to(folder / 'a.txt')
  assert read(folder) == ['One.', 'One.']
  (tmp_path / 'alias').symlink_to(folder)  # the folder itself may be a link
  assert read(tmp_path / 'alias') == ['One.', 'One.']
  (folder / 'c.txt').symlink_to(tmp_path / 'secret')
  with pytest.raises(ValueError, match='c.txt is a link to .*secret, outside the text folder'):
    read(folder)


@pytest.mark.parametrize('name', ['b.txt.zst', 'part/c.parquet', 'D.ZIP'])
def test_data_that_is_not_read_is_not_left_out_in_silence(tmp_path, name):
  (tmp_path / 'a.txt').write_text('one')
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).write_bytes(b'data')
  assert read(tmp_path) == ['one']  # enough for a sample of a text
  with pytest.raises(ValueError, match=f'{name} in a text folder is not read'):
    list(corpus.lines(tmp_path.name, root=tmp_path.parent))
