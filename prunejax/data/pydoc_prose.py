"""Extracts prose from docstrings: paragraphs of whole sentences, without code, tables or markup."""

import inspect
import re

# Sections of items: the names are dropped, the descriptions stay if they are prose.
_ITEMS = frozenset(
  (
    'parameters|other parameters|returns|return|yields|yield|receives|raises|raise|warns|'
    'attributes|args|arguments|kwargs|keyword args|keyword arguments|keyword parameters|params|'
    'inputs|input|outputs|output|properties|members|options|type parameters|call arguments|'
    'extra arguments|optional arguments|returned value|return value|parameter|argument'
  ).split('|')
)
# Sections without prose.
_SKIPPED = frozenset(
  (
    'see also|references|methods|bibliography|shape|signature|copyright|license|author|authors|'
    'contents|functions|classes|constants|usage|environment variables|citation|version|date'
  ).split('|')
)
_RULES = frozenset('-=~^"*+#')
_UNDERLINE = re.compile(r'^\s*([-=~^"*+#])\1{2,}\s*$')
_HEADING = re.compile(r'^\**(#+ )?([A-Za-z][\w ]{1,40}?)\**:?:?\**$')
_BULLET = re.compile(r'^\s*([-*+\u2022]|\(?\d{1,2}[.)]|#\.|\[\d+\]|\.\. \[\w+\])\s+')
_PARAM = re.compile(
  r'^(:(param|arg|argument|keyword|kwarg|return|returns|raise|raises|ivar|cvar|'
  r'var|yields?)\b[^:]*:|'
  r'@(param|return|raise)\s+\w+:?)\s*(?P<rest>.*)$'
)
_FIELD = re.compile(r'^(:[A-Za-z][\w -]*(\s[^:`]+)?:(\s|$)|@\w+|\\\w+)')
_ADMONITION = re.compile(
  r'^\.\.\s+(note|warning|tip|important|caution|hint|attention)::\s*(?P<rest>.*)$', re.I
)
_ITEM = re.compile(
  r'^[`*]*[\w./-]+[`*]*( ?\([^()]*(\([^()]*\)[^()]*)*\))?(?P<colon> ?:)(\s+(?P<rest>.*))?$'
)
_TYPED_ITEM = re.compile(
  r'^[`*]*[\w./-]+[`*]* \(.*\):(\s+(?P<rest>.*))?$|^`[^`]*`: (?P<quoted>.*)$'
)

_LINKS = (
  (re.compile(r':\w[\w:+.-]*:`~[^`<]*?([\w]+)`'), r'\1'),  # :func:`~a.b.c` -> c
  (re.compile(r':\w[\w:+.-]*:`!?([^`<]+?)\s*<[^`]*>`'), r'\1'),  # :ref:`words <target>` -> words
  (re.compile(r':\w[\w:+.-]*:`!?([^`]*)`'), r'\1'),
  (re.compile(r'`([^`<]+?)\s*<[^`]*>`_{0,2}'), r'\1'),
  (re.compile(r'!?\[([^\]]+)\]\([^)]*\)'), r'\1'),  # [words](address)
  (re.compile(r'\s*\[[\w, -]{1,12}\]_'), ''),  # [1]_
  (re.compile(r'\s*\[\d+\]'), ''),
  (re.compile(r'``?`?([^`]*)``?`?_{0,2}'), r'\1'),
  (re.compile(r'\*\*([^*]+)\*\*'), r'\1'),
  (re.compile(r'(?<![\w*])\*([^*\s][^*]*?)\*(?![\w*])'), r'\1'),
  (re.compile(r'\|(\w[\w. ]*)\|'), r'\1'),
  (re.compile(r'\\([*_`|])'), r'\1'),
)
_PLAIN = str.maketrans(
  {
    '\u2018': "'",
    '\u2019': "'",
    '\u201c': '"',
    '\u201d': '"',
    '\u2013': '-',
    '\u2014': '-',
    '\u2026': '...',
    '\u00a0': ' ',
    '\u2212': '-',
  }
)
_MARKUP = re.compile(r'[`*\[|\\]')
_GAP = re.compile(r'\s+([.,;])(?=\s|$)')
_SENTENCE_END = re.compile(r'[.!?]["\')]?\s+(?=[A-Z"\'(])')
_ABBREVIATION = re.compile(r'(^|[\s(])(e\.g|i\.e|cf|vs|al|Eq|Fig|etc|approx|resp|Dr|Mr|St|[A-Z])$')
_REFUSED = re.compile(
  r'https?:|www\.|ftp:|[\\{}|^~<>=@#$%\[\]`]|\*|__|::|->|//|\.\.\.\.|'
  r'\bTODO\b|\bFIXME\b|arXiv|\bdoi\b|\bISBN\b'
)
_LEGAL = re.compile(
  r'copyright|licen[sc]e|warrant|all rights reserved|permission is|apache|author:', re.I
)
_CAMEL = re.compile(r'[a-z][A-Z]')
_WORDS = re.compile(r"(?<!\S)[\"'(]{0,2}[A-Za-z']+(?:[-/][A-Za-z]+)*[,;:.!?)\"']*(?!\S)")
_FUNCTION_WORDS = frozenset(
  (
    'the a an of to in is are be by for with on as that this it its or and from which if not at '
    'can will when was were has have do does should may must you we they all any each no than but '
    'into only used between these those how where there use'
  ).split()
)
_VERBS = frozenset(
  (
    'is are be was were has have had can will may must should do does did let see use get set '
    'make take give return compute run call load find read write apply add build convert check '
    'perform represent transform select test draw plot wrap define implement print keep show '
    'allow contain provide need want work hold put become mean'
  ).split()
)
_VERB_ENDINGS = ('s', 'ed', 'ing', 'ize', 'ise', 'ate', 'ify')


def plain(text: str) -> str:
  """Removes markup from a line: roles, links, emphasis; typographic signs become ASCII."""
  if not text.isascii():
    text = text.translate(_PLAIN)
  if _MARKUP.search(text):
    for pattern, words in _LINKS:
      text = pattern.sub(words, text)
    text = _GAP.sub(r'\1', text)
  return ' '.join(text.split())


def sentences(text: str) -> list[str]:
  """Splits a line of English prose after . ! ? before a capital, but not after abbreviations."""
  found, start = [], 0
  for end in _SENTENCE_END.finditer(text):
    if text[end.start()] != '.' or not _ABBREVIATION.search(
      text, max(start, end.start() - 8), end.start()
    ):
      found.append(text[start : end.end()].strip())
      start = end.end()
  last = text[start:].strip()
  return [*found, last] if last else found


def is_sentence(text: str) -> bool:
  """Returns whether a text looks like a sentence of English prose.

  It starts and ends like one, is mostly words, and has some function words and what may be a verb.
  """
  if not text.isascii() or text[-1:] not in '.!?:' or not (text[0].isupper() or text[0] in '"\'('):
    return False
  words = text.lower().split()
  if not 4 <= len(words) <= 80 or _REFUSED.search(text):
    return False
  function_words = sum(map(_FUNCTION_WORDS.__contains__, words))
  if function_words < max(1, 0.15 * len(words)) or text.count('(') != text.count(')'):
    return False
  strange = len(words) - len(_WORDS.findall(text)) + len(_CAMEL.findall(text))
  return strange <= 0.2 * len(words) and any(
    w in _VERBS or w.rstrip('.,;:').endswith(_VERB_ENDINGS) for w in words
  )


def _blocks(doc):
  """Yields lists of lines: each paragraph, list item or description that no rule drops."""
  lines = doc.split('\n')
  block, indent = [], None  # the lines so far, and their indentation (None: the next line's)
  skip_below = None  # lines that are indented deeper are skipped (a literal block, a directive)
  section = None  # (kind, indentation of its heading); 'underlined' or 'indented' items, 'skipped'
  fence = doctest = False
  for i, line in enumerate([*lines, '']):
    words = line.strip()
    deep = len(line) - len(line.lstrip())
    if words.startswith(('```', '~~~')):
      fence = not fence
      words = ''
    if not words or fence:
      if block:
        yield block
        if block[-1].endswith('::'):
          skip_below = deep if indent is None else indent
      block, doctest = [], False
      continue
    if skip_below is not None:
      if deep > skip_below:
        continue
      skip_below = None
    first = words[0]
    below = lines[i + 1] if i + 1 < len(lines) else ''
    underlined = (
      below
      and below.lstrip()[:1] in _RULES
      and _UNDERLINE.match(below)
      and not _UNDERLINE.match(line)
    )
    name = _HEADING.match(words) if underlined or words[-1] == ':' else None
    name = name[2].lower() if name else ''
    code = doctest or words.startswith(('>>>', 'In ['))
    heading = not code and (
      underlined or words.endswith(':') and (name in _ITEMS or name in _SKIPPED)
    )
    if section and not heading and (section[0] == 'indented' and deep <= section[1]):
      section = None
    item = rest = None
    if section and section[0] != 'skipped':
      item = _ITEM.match(words) if ':' in words else None
      rest = item['rest'] if item and item['colon'] == ':' else None
    elif section is None:
      item = _TYPED_ITEM.match(words) if '):' in words or '`:' in words else None
      rest = item and (item['rest'] or item['quoted'])
    param = _PARAM.match(words) if first in ':@' else None
    field = first in ':@\\' and _FIELD.match(words)
    bullet = _BULLET.match(line) if not first.isalpha() else None
    if block and (
      code
      or heading
      or item
      or param
      or bullet
      or words.startswith('..')
      or field
      or indent is not None
      and abs(deep - indent) > (4 if len(block) == 1 else 1)
      or section
      and section[0] == 'underlined'
      and deep <= section[1]
    ):
      yield block
      block = []
    if code:
      doctest = True
    elif heading:
      kind = 'underlined' if underlined else 'indented'
      section = ('skipped', deep) if name in _SKIPPED else (kind, deep) if name in _ITEMS else None
      if name in _SKIPPED and not underlined:
        section, skip_below = None, deep
    elif section and section[0] == 'skipped' or first in _RULES and _UNDERLINE.match(line):
      continue
    elif param:
      block, indent = [param['rest']] if param['rest'] else [], None
    elif words.startswith('..') or field:
      admonition = _ADMONITION.match(words)
      skip_below = None if admonition else deep
      block, indent = [admonition['rest']] if admonition and admonition['rest'] else [], None
    elif section and section[0] == 'underlined' and deep <= section[1]:
      continue
    elif item:
      block, indent = [rest] if rest else [], None
    elif bullet:
      block, indent = [line[bullet.end() :].rstrip()], bullet.end()
    else:
      indent = deep if indent is None or not block else indent
      block.append(words)


def paragraphs(doc: str) -> list[str]:
  """Returns the prose paragraphs of one raw docstring, each a line of whole sentences."""
  prose = []
  for lines in _blocks(inspect.cleandoc(doc)):
    raw = ' '.join(lines)
    if len(raw) < 20:
      continue
    text = plain(raw.replace('::', ':'))
    kept = [s for s in sentences(text) if is_sentence(s)]
    # A clause that announces code says nothing without the code.
    while kept and kept[-1].endswith(':'):
      kept.pop()
    if kept and sum(map(len, kept)) >= 0.5 * len(text) and not _LEGAL.search(text):
      prose.append(' '.join(kept))
  return prose
