"""From a docstring to plain prose: paragraphs of whole sentences, with code, tables and markup gone."""
import inspect
import re

# Sections that are tables of names in disguise: everything below their heading is left out.
_TABLES = frozenset(
  'parameters|other parameters|returns|return|yields|yield|receives|raises|raise|warns|attributes|methods|see also|references|args|'
  'arguments|kwargs|keyword args|keyword arguments|keyword parameters|params|inputs|input|outputs|output|usage|shape|bibliography|'
  'properties|members|options|type parameters|functions|classes|constants|contents|signature|copyright|license|author|authors|'
  'environment variables|call arguments|default|extra arguments|optional arguments|returned value|return value'
  .split('|'))
_UNDERLINE = re.compile(r'^\s*([-=~^"*+#])\1{2,}\s*$')
_HEADING = re.compile(r'^\s*\**(#+ )?(?P<name>[A-Za-z][\w ]{1,40}?)\**:?:?\**\s*$')
_FENCE = re.compile(r'^\s*(```|~~~)')
_BULLET = re.compile(r'^\s*([-*+•]|\(?\d{1,2}[.)]|#\.|\[\d+\])\s+')
_FIELD = re.compile(r'^\s*(:[A-Za-z][\w -]*(\s[^:`]+)?:(\s|$)|@\w+|\\\w+)')
_DIRECTIVE = re.compile(r'^\s*\.\.(\s|$)')
_ADMONITION = re.compile(r'^\s*\.\.\s+(note|warning|tip|important|caution|hint|attention)::\s*(?P<rest>.*)$', re.I)
_ITEM = re.compile(r'^\s*[*`\w.\[\], ]{1,60}\s+:\s|^\s*[`*]*[\w.]+[`*]*( ?\([^)]*\))?: ')

_LINKS = (
  (re.compile(r':\w[\w:+.-]*:`~[^`<]*?([\w]+)`'), r'\1'),                 # :func:`~a.b.c` -> c
  (re.compile(r':\w[\w:+.-]*:`!?([^`<]+?)\s*<[^`]*>`'), r'\1'),           # :ref:`words <target>` -> words
  (re.compile(r':\w[\w:+.-]*:`!?([^`]*)`'), r'\1'),
  (re.compile(r'`([^`<]+?)\s*<[^`]*>`_{0,2}'), r'\1'),
  (re.compile(r'!?\[([^\]]+)\]\([^)]*\)'), r'\1'),                        # [words](address)
  (re.compile(r'\s*\[[\w, -]{1,12}\]_'), ''),                             # [1]_
  (re.compile(r'\s*\[\d+\]'), ''),
  (re.compile(r'``?`?([^`]*)``?`?_{0,2}'), r'\1'),
  (re.compile(r'\*\*([^*]+)\*\*'), r'\1'),
  (re.compile(r'(?<![\w*])\*([^*\s][^*]*?)\*(?![\w*])'), r'\1'),
  (re.compile(r'\|(\w[\w. ]*)\|'), r'\1'),
  (re.compile(r'\\([*_`|])'), r'\1'),
)
_PLAIN = str.maketrans({'\u2018': "'", '\u2019': "'", '\u201c': '"', '\u201d': '"', '\u2013': '-', '\u2014': '-',
                        '\u2026': '...', '\u00a0': ' ', '\u2212': '-'})
_SPACES = re.compile(r'\s+')
_SENTENCE_END = re.compile(r'(?<![ (.]e\.g\.)(?<![ (.]i\.e\.)(?<!\bcf\.)(?<!\bvs\.)(?<!\bet al\.)(?<!\bEq\.)(?<!\bFig\.)'
                           r'(?<=[.!?])["\')]?\s+(?=[A-Z"\'(])')
_REFUSED = re.compile(r'https?:|www\.|ftp:|[\\{}|^~<>=@#$%\[\]`]|\*|__|::|->|//|\.\.\.\.|\bTODO\b|\bFIXME\b|arXiv|\bdoi\b|\bISBN\b')
_LEGAL = re.compile(r'copyright|licen[sc]e|warrant|all rights reserved|permission is|apache|author:', re.I)
_CODE_WORD = re.compile(r'[_()/0-9+:]|\w\.\w|[a-z][A-Z]|^-')
_LETTERS = re.compile(r"[A-Za-z']+(-[A-Za-z]+)*[,;:.!?)\"']*$|^[\"'(][A-Za-z'-]+[,;:.!?)\"']*$")
_FUNCTION_WORDS = frozenset(
  'the a an of to in is are be by for with on as that this it its or and from which if not at can will when was were has have '
  'do does should may must you we they all any each no than but into only used between these those how where there use'.split())
_VERB = re.compile(r'\b(is|are|be|was|were|has|have|had|can|will|may|must|should|do|does|did|let|see|use|get|set|make|take|give|'
                   r'return|compute|create|[a-z]{2,}(s|ed|ing|ize|ise|ate|ify)|run|call|load|save|find|read|write|apply|add|build|'
                   r'convert|check|raise|perform|represent|transform|select|test|draw|plot|wrap|define|helper|implement|print)\b', re.I)


def plain(text):
  """The words of a marked-up line: roles, links, emphasis and typographic quotes become plain ASCII."""
  for pattern, words in _LINKS:
    text = pattern.sub(words, text)
  return _SPACES.sub(' ', text.translate(_PLAIN)).strip()


def sentences(text):
  """Split one line of prose after . ! ? before a capital, keeping abbreviations whole."""
  return [s.strip() for s in _SENTENCE_END.split(text) if s.strip()]


def is_sentence(text):
  """True for a sentence of prose: it begins and ends as one, most words are words, some are function words, one could be a verb."""
  if not text.isascii() or text[-1:] not in '.!?:' or not (text[0].isupper() or text[0] in '"\'('):
    return False
  words = text.split()
  if not 4 <= len(words) <= 80 or _REFUSED.search(text):
    return False
  code = sum(1 for w in words if _CODE_WORD.search(w.strip('().,:;')))
  letters = sum(1 for w in words if _LETTERS.match(w))
  glue = sum(1 for w in words if w.lower().strip('.,;:()') in _FUNCTION_WORDS)
  return (code <= 0.15 * len(words) and letters >= 0.8 * len(words) and glue >= max(1, 0.15 * len(words))
          and text.count('(') == text.count(')') and _VERB.search(text) is not None)


def _blocks(doc):
  """(indent, lines) of every paragraph or list item that no rule has thrown out."""
  skip_below = None      # leave out what is indented deeper than this (a literal block, a directive, an Args: table)
  table = False          # inside an underlined section of names
  fence = doctest = False
  indent, block = 0, []
  lines = doc.split('\n')
  for i, line in enumerate(lines + ['']):
    stripped = line.strip()
    deep = len(line) - len(line.lstrip())
    if _FENCE.match(line):
      fence = not fence
      stripped = ''
    elif fence:
      continue
    if stripped and skip_below is not None:
      if deep > skip_below:
        continue
      skip_below = None
    if stripped.startswith(('>>>', 'In [')):
      doctest = True
    if not stripped:
      doctest = False
    below = lines[i + 1] if i + 1 < len(lines) else ''
    heading = _HEADING.match(line)
    underlined = bool(stripped) and bool(_UNDERLINE.match(below)) and not _UNDERLINE.match(line)
    if underlined:
      table = heading is not None and heading['name'].strip().lower() in _TABLES
    named = heading is not None and stripped.endswith(':') and heading['name'].strip().lower() in _TABLES
    rule = bool(_UNDERLINE.match(line))
    directive = bool(_DIRECTIVE.match(line))
    field = bool(_FIELD.match(line))
    bullet = _BULLET.match(line)
    if not stripped or doctest or underlined or rule or named or directive or field or table or bullet or (
        block and abs(deep - indent) > (4 if len(block) == 1 else 1)):
      if block:
        yield indent, block
        if block[-1].rstrip().endswith('::'):
          skip_below = indent
          if stripped and deep > indent:
            indent, block = 0, []
            continue
      indent, block = 0, []
    if not stripped or doctest or underlined or rule or table:
      continue
    if named or field:
      skip_below = deep
    elif directive:
      admonition = _ADMONITION.match(line)
      if admonition is None:
        skip_below = deep
      elif admonition['rest']:
        indent, block = deep, [admonition['rest']]
    elif bullet:
      indent, block = bullet.end(), [line[bullet.end():]]
    else:
      indent = indent if block else deep
      block.append(stripped)


def paragraphs(doc):
  """Prose paragraphs of one raw docstring, each one line of whole sentences (possibly none)."""
  out = []
  for _, lines in _blocks(inspect.cleandoc(doc.expandtabs(4))):
    raw = ' '.join(lines)
    if len(raw) < 20 or _ITEM.match(raw) or _LEGAL.search(raw):
      continue
    text = plain(raw.replace('::', ':'))
    kept = [s for s in sentences(text) if is_sentence(s)]
    # A lone clause that announces code which is no longer there says nothing.
    while kept and kept[-1].endswith(':'):
      kept.pop()
    if kept and sum(map(len, kept)) >= 0.5 * len(text):
      out.append(' '.join(kept))
  return out
