"""When the rule of each claim was fixed, and whether its code has changed since.

The rule of a claim is the code that decides the word of its verdict: those statements of the
function that makes the `Verdict` which this word depends on, and every function and constant of
the project that they use. Claim texts, evidence and layout are no part of it. `codes` hashes that
code from the sources alone.

`rules.json` beside the claims of a paper holds, by the claim's name, the hash of its rule, the
commit that fixed it and the date of that commit. `python tests/claim_rules.py` writes it. A report
compares the file with the code and with the times of the ledger's rows; git is not needed.
"""

import ast
import datetime
import hashlib
import importlib.util
import inspect
import json
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from prunejax.report import tables

NAME = 'rules.json'
# Of these packages, functions and constants that a rule uses are part of it.
OURS = ('experiments', 'prunejax.report')
CHANGED = 'changed since, not recorded'
NOT_RECORDED = 'not recorded'


class Source(NamedTuple):
  """A parsed module: its functions and constants by name, and what its imported names mean."""

  defined: dict
  imported: dict


def path_of(claims: Callable) -> pathlib.Path:
  """The file of rules that belongs to the function that judges a paper's claims."""
  return pathlib.Path(inspect.getfile(claims)).parent / NAME


def read(path: pathlib.Path) -> dict:
  """The recorded rules, {regex of names: {'code', 'commit', 'fixed'}}; {} without a file."""
  return json.loads(path.read_text()) if path.exists() else {}


class Fixed(NamedTuple):
  """When the rule of a claim was fixed.

  claim: its name.
  date, commit: as recorded, '-' where nothing is.
  word: of `standing`.
  """

  claim: str
  date: str
  commit: str
  word: str


def of_ledger(claims: Callable, checks, rows) -> list[Fixed]:
  """Says of each claim when its rule was fixed, and whether that was before the ledger.

  Args:
    claims: the function that made the verdicts.
    checks: the `verdicts.Verdict`s.
    rows: finished rows of the ledger.

  Returns:
    One for each check; none where the paper keeps no file of rules.
  """
  if not (path := path_of(claims)).exists():
    return []
  recorded, now, times = read(path), codes(claims.__module__, source_of), times_of(rows)
  entries = [matching(recorded, check.name) or {} for check in checks]
  return [
    Fixed(
      check.name,
      entry.get('fixed', '-'),
      entry.get('commit', '-'),
      standing(entry, matching(now, check.name), times),
    )
    for check, entry in zip(checks, entries, strict=True)
  ]


def table(fixed: list[Fixed], rows) -> tables.Table:
  """Tabulates `of_ledger`, a line for each claim."""
  lines = [(f.claim.replace('_', ' '), f.date, f.commit, f.word) for f in fixed]
  note = 'A rule is the code that decides the verdict, without words and evidence. Times are UTC.'
  if times := times_of(rows):
    note += f' Rows of this ledger: {times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M}.'
  head = ('claim', 'rule fixed', 'commit', 'beside the ledger')
  return tables.Table('When the rules were fixed', head, tuple(lines), note)


def noted(checks, fixed: list[Fixed]) -> list:
  """The verdicts, with a note in the evidence of each whose rule came after rows of the ledger."""
  words = {f.claim: f'The rule was fixed {f.word}.' for f in fixed if f.word.startswith('after')}
  words |= {f.claim: f'The rule: {f.word}.' for f in fixed if f.word in (CHANGED, NOT_RECORDED)}
  return [
    check._replace(evidence=f'{check.evidence} {words[check.name]}'.strip())
    if check.name in words
    else check
    for check in checks
  ]


def times_of(rows) -> list:
  """When the rows were written, in order."""
  return sorted(moment(row['time']) for row in rows if row.get('time'))


def standing(entry: dict, code: str | None, times: list) -> str:
  """In words: whether a rule was fixed before the ledger's rows, and whether it has changed since.

  Args:
    entry: of the file of rules, or {}.
    code: hash of the rule as it is now.
    times: of the rows, in order.
  """
  if not entry:
    return NOT_RECORDED
  if entry['code'] != code:
    return CHANGED
  fixed = moment(entry['fixed'])
  earlier = sum(time < fixed for time in times)
  if not times:
    return 'the rows have no times'
  return f'after {earlier} of {len(times)} rows' if earlier else 'before its first row'


def moment(text: str) -> datetime.datetime:
  """A time of a row or of a commit; one without a zone is UTC."""
  time = datetime.datetime.fromisoformat(text)
  return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def matching(by_pattern: dict, name: str):
  """The value whose regex the name of a claim matches; the longest regex counts."""
  patterns = [pattern for pattern in by_pattern if re.fullmatch(pattern, name)]
  return by_pattern[max(patterns, key=len)] if patterns else None


def source_of(module: str) -> str | None:
  """The text of a module of the project that is installed here; None where there is none."""
  try:
    spec = importlib.util.find_spec(module)
  except (ImportError, ValueError):
    return None
  return pathlib.Path(spec.origin).read_text() if spec and spec.origin else None


def codes(module: str, load: Callable) -> dict[str, str]:
  """Hashes the rules of a module.

  Args:
    module: dotted name of the module with the function `claims` or `check`; the modules of its
      package that it imports functions from are searched as well.
    load: dotted name -> source text, or None.

  Returns:
    {regex of the names of claims: 12 hex digits}.
  """
  sources: dict = {}
  found = {}
  package = module.rpartition('.')[0]
  first = _parsed(module, load, sources)
  beside = {home for home, _ in first.imported.values() if home.startswith(package + '.')}
  for home in (module, *sorted(beside)):
    parsed = _parsed(home, load, sources)
    for function in parsed.defined.values() if parsed else ():
      if isinstance(function, ast.FunctionDef):
        for pattern, parts in _rules(function, home, parsed):
          seen: dict = {}
          text = [_text(part) for part in parts]
          _follow(parts, home, load, sources, seen)
          whole = '\n'.join([*text, *(f'{k}: {v}' for k, v in sorted(seen.items()))])
          found[pattern] = hashlib.sha256(whole.encode()).hexdigest()[:12]
  return found


def _parsed(module, load, sources) -> Source | None:
  if module not in sources:
    text = load(module)
    sources[module] = _source(ast.parse(text), module) if text is not None else None
  return sources[module]


def _source(tree, module) -> Source:
  defined, imported = {}, {}
  for node in tree.body:
    if isinstance(node, ast.FunctionDef):
      defined[node.name] = node
    for target in _targets(node) if isinstance(node, ast.Assign | ast.AnnAssign) else ():
      defined[target] = node
    if isinstance(node, ast.ImportFrom):
      for alias in node.names:
        imported[alias.asname or alias.name] = (node.module or '', alias.name)
  return Source(defined, imported)


def _rules(function, home, parsed):
  """(regex of names, deciding nodes) of each call in `function` that makes a Verdict."""
  rules: dict = {}
  for call in ast.walk(function):
    if not (isinstance(call, ast.Call) and _last(call.func) in ('Verdict', 'verdict')):
      continue
    plain = _last(call.func) == 'Verdict'
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    at = 0 if plain else 1
    name = keywords.get('name') or (call.args[at] if len(call.args) > at else None)
    decided = [keywords['verdict']] if 'verdict' in keywords else call.args[2:3]
    decided = decided if plain else call.args[3:5]
    for pattern, uses in _names(name, function, parsed):
      rules.setdefault(pattern, []).extend([*_slice(function, decided), *decided, *uses])
  return rules.items()


def _names(name, function, parsed):
  """[(regex, nodes beside the function that decide)] of the expression that names a claim."""
  if isinstance(name, ast.Constant):
    return [(_escaped(name.value), [])]
  if isinstance(name, ast.JoinedStr):
    parts = [_escaped(p.value) if isinstance(p, ast.Constant) else '.+?' for p in name.values]
    # A claim whose name holds a condition may lack that part.
    optional = [
      isinstance(p, ast.FormattedValue) and isinstance(p.value, ast.IfExp) for p in name.values
    ]
    parts = [f'(?:{p})?' if o else p for p, o in zip(parts, optional, strict=True)]
    return [(''.join(parts), _uses(name, function, parsed))]
  if not isinstance(name, ast.Name):
    return []
  for node in ast.walk(function):
    if isinstance(node, ast.Assign) and name.id in _targets(node):
      return _names(node.value, function, parsed)
  # A parameter: the names are those that the callers give.
  inner = next(
    (
      node
      for node in ast.walk(function)
      if isinstance(node, ast.FunctionDef) and name.id in _parameters(node)
    ),
    function,
  )
  if name.id not in _parameters(inner):
    return []
  index, out = _parameters(inner).index(name.id), []
  for caller, call in _calls(inner.name, function, parsed):
    if len(call.args) > index:
      for pattern, uses in _names(call.args[index], caller, parsed):
        rest = [arg for arg in call.args if arg is not call.args[index]]
        out.append((pattern, [*rest, *_slice(caller, rest), *uses]))
  return out


def _uses(name, function, parsed):
  """The arguments of all calls of a function whose claims are named by them."""
  del name
  return [arg for _, call in _calls(function.name, function, parsed) for arg in call.args]


def _calls(name, function, parsed):
  """(function, call) of the calls of a function inside its module."""
  homes = [f for f in parsed.defined.values() if isinstance(f, ast.FunctionDef)]
  for home in homes:
    for node in ast.walk(home):
      if isinstance(node, ast.Call) and _last(node.func) == name:
        yield home, node


def _slice(function, decided):
  """The statements of a function that the expressions depend on, and all its conditions."""
  statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
  conditions = [node.test for node in statements if isinstance(node, ast.If)]
  wanted = {name for node in [*decided, *conditions] for name in _loaded(node)}
  kept: list = []
  more = True
  while more:
    more = False
    for node in statements:
      if node is function or any(node is other for other in kept):
        continue
      if wanted & set(_targets(node)):
        kept.append(node)
        wanted |= _loaded(node.iter if isinstance(node, ast.For) else node)
        more = True
  order = {id(node): i for i, node in enumerate(statements)}
  kept = sorted(kept, key=lambda node: order[id(node)])
  return [*(node.iter if isinstance(node, ast.For) else node for node in kept), *conditions]


def _follow(parts, home, load, sources, seen):
  """Adds to `seen` the text of every function and constant of the project that the nodes use."""
  parsed = _parsed(home, load, sources)
  for part in parts:
    for node in ast.walk(part):
      where, name = home, None
      if isinstance(node, ast.Name):
        name = node.id
        if parsed and name in parsed.imported:
          where, name = parsed.imported[name]
      elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        module, attribute = (parsed.imported if parsed else {}).get(node.value.id, ('', ''))
        where, name = f'{module}.{attribute}', node.attr
      if not name or not where.startswith(OURS) or f'{where}.{name}' in seen:
        continue
      target = _parsed(where, load, sources)
      if target and name in target.imported and name not in target.defined:
        where, name = target.imported[name]
        target = _parsed(where, load, sources) if where.startswith(OURS) else None
      if target and name in target.defined and f'{where}.{name}' not in seen:
        seen[f'{where}.{name}'] = _text(target.defined[name])
        _follow([target.defined[name]], where, load, sources, seen)


def _text(node):
  """A node as text, without positions, docstrings, types of arguments and prose."""
  return _dumped(_Plain().visit(ast.parse(ast.unparse(node))))


def _dumped(node):
  """What `ast.dump` writes on Python 3.11: later versions omit empty lists and have new fields."""
  if isinstance(node, list):
    return f'[{", ".join(map(_dumped, node))}]'
  if not isinstance(node, ast.AST):
    return repr(node)
  kind, shown = type(node), []
  for name in node._fields:
    value = getattr(node, name, None)
    is_default = value is None and getattr(kind, name, ...) is None
    if not is_default and name != 'type_params':  # of Python 3.12
      shown.append(f'{name}={_dumped(value)}')
  return f'{kind.__name__}({", ".join(shown)})'


class _Plain(ast.NodeTransformer):
  """Empties what is words: docstrings, texts with a space, f-strings, annotations."""

  def visit_Constant(self, node):
    prose = isinstance(node.value, str) and any(c.isspace() for c in node.value)
    return ast.Constant('') if prose else node

  def visit_JoinedStr(self, node):
    return ast.Constant('')

  def visit_FunctionDef(self, node):
    self.generic_visit(node)
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
      node.body = node.body[1:] or [ast.Pass()]
    node.returns = None
    return node

  def visit_arg(self, node):
    return ast.arg(node.arg, None)


def _escaped(text):
  """A text as a regex; spaces and hyphens stay as they are, since people read the file."""
  return re.sub(r'([.^$*+?{}\[\]|()\\])', r'\\\1', text)


def _last(node):
  return getattr(node, 'attr', None) or getattr(node, 'id', None)


def _parameters(function):
  return [arg.arg for arg in function.args.args]


def _loaded(node):
  return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _targets(node):
  """The names that a statement gives a value, those of lists it appends to among them."""
  if isinstance(node, ast.FunctionDef):
    return [node.name]
  if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
    return [*_base(node.value.func)] if isinstance(node.value.func, ast.Attribute) else []
  targets = getattr(node, 'targets', None) or [getattr(node, 'target', None)]
  return [name for target in targets if target is not None for name in _base(target)]


def _base(target):
  if isinstance(target, ast.Tuple | ast.List):
    return [name for item in target.elts for name in _base(item)]
  while isinstance(target, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
    target = target.func if isinstance(target, ast.Call) else target.value
  return [target.id] if isinstance(target, ast.Name) else []
