"""Writes what a fine-tuned model says of a test set: files as GLUE expects them, or one's own."""

import jax
import jax.numpy as jnp
import numpy as np

from prunejax import files
from prunejax.data import finetuning, glue, labelled, squad, tasks
from prunejax.data.examples import Examples
from prunejax.train import console, families, saved_model
from prunejax.train.recipe import DTYPES


def predict(where, out, root: str = '', say=console.say) -> list[str]:
  """Writes a file of predictions for each test set of the task of a run.

  A file has two columns, index and prediction. Predictions of GLUE are spelled as in a submission;
  those of STS-B are scores from 0 to 5. Answers to questions are a JSON object for each file of
  questions, {id: answer}, as the program of SQuAD reads it.

  Args:
    where: the work directory of a run on a task of GLUE, of questions, or on files of one's own.
    out: the folder to write.
    root: the folder of the data; '' for `data.root` of the run.
    say: prints a line.

  Returns:
    The names of the files.

  Raises:
    ValueError: the run is on no such task, or two files of questions have one name.
    FileExistsError: the folder holds a file already.
    FileNotFoundError: there is no run or no test set.
  """
  model = saved_model.load(where)
  name = model.recipe.data.task if model.recipe is not None else ''
  asks = squad.is_name(name)
  if not (name.startswith(('glue/', 'tfds/glue/')) or labelled.is_name(name) or asks):
    raise ValueError(
      f'{str(where)!r} is no run on a task of GLUE, of questions or of files of your own (its'
      f' data.task is {name!r}): expected the --workdir of a train command'
    )
  root = root or model.recipe.data.root
  if asks:
    return _answers(model, name, root, files.path(out), say)
  sets = list(_own(name, root) if labelled.is_name(name) else _of_glue(name, root))
  out = files.path(out)
  if taken := sorted({file for file, *_ in sets} & set(files.names(out))):
    raise FileExistsError(f'--out={str(out)!r} holds {taken[0]} already: nothing was written')
  for file, numbers, examples, spelled in sets:
    outputs = _outputs(model, tasks.get(name), examples)
    if spelled is None:
      top = 5.0 if not labelled.is_name(name) else np.inf
      low = 0.0 if not labelled.is_name(name) else -np.inf
      words = [f'{score:.3f}' for score in np.clip(outputs[:, 0], low, top)]
    else:
      words = [spelled[i] for i in outputs.argmax(-1)]
    lines = [f'{number}\t{word}\n' for number, word in zip(numbers, words, strict=True)]
    files.write(out / file, ''.join(['index\tprediction\n', *lines]))
    say(f'{out / file}: {len(words):,} predictions of {model.what}')
  return [file for file, *_ in sets]


def _answers(model, name, root, out, say):
  """Writes the answers to the held-out questions, and to those of the file `test`."""
  splits = [split for split in ('validation', 'test') if getattr(squad.parse(name), split)]
  paths = {split: squad.path_of(name, split, root) for split in splits}
  sets = {f'{path.stem}-predictions.json': split for split, path in paths.items()}
  if len(sets) < len(paths):
    raise ValueError(
      f'{name!r}: the answers of {" and ".join(map(repr, map(str, paths.values())))} would go into'
      f' one file, {next(iter(sets))}: give the files different names'
    )
  if taken := sorted(sets.keys() & set(files.names(out))):
    raise FileExistsError(f'--out={str(out)!r} holds {taken[0]} already: nothing was written')
  for file, split in sets.items():
    questions = squad.read(name, split, root)
    windows = squad.encode(questions, model.tokenizer, model.recipe.data.seq_len)
    logits = _applied(model, ('spans',), 2, windows.arrays)
    answers = squad.best(windows, logits, questions)
    files.write(out / file, squad.submission(answers))
    scores = ''
    if split == 'validation':
      scored = squad.score(answers, questions)
      scores = f'; exact match {scored["exact_match"]:.4f}, F1 {scored["f1"]:.4f}'
    say(f'{out / file}: {len(answers):,} answers of {model.what}{scores}')
  return list(sets)


def _of_glue(name, root):
  """(file, numbers of rows, examples, classes as they are written) of each test set of GLUE."""
  task = name.removeprefix('tfds/').removeprefix('glue/')
  if name.startswith('tfds/') or not root:
    raise ValueError(f'the test sets of {name!r} are read from local files: name --data=FOLDER')
  for source, file in glue.submissions(task):
    numbers, a, b = glue.read_test(root, task, source)
    yield file, numbers, Examples(a, b, np.zeros(len(a), np.int32)), glue.spelled(task)


def _own(name, root):
  examples = labelled.read(name, 'test', root)
  file = labelled.path_of(name, 'test', root).stem + '.tsv'
  yield file, range(len(examples.a)), examples, tasks.get(name).classes


def _outputs(model, task, examples):
  """float32 [n, outputs] of the examples, in order."""
  outputs = len(task.classes) if task.classes else 1
  arrays = finetuning.encode(examples, model.tokenizer, model.recipe.data.seq_len)
  return _applied(model, ('classifier',), outputs, arrays)


def _applied(model, heads, outputs, arrays):
  """float32 [n, ...]: what a head says of the rows of `arrays`, in order."""
  run = model.recipe
  module = families.make(
    model.size.to_json_string(use_diff=False), heads, outputs, DTYPES[run.model.dtype]
  )
  params = jax.tree.map(jnp.asarray, model.params)

  @jax.jit
  def apply(batch):
    inputs = batch['input_ids'], batch['segment_ids'], batch['valid']
    return module.apply({'params': params}, *inputs)[heads[0]]

  parts = []
  for batch in finetuning.eval_batches(arrays, run.eval.batch_size):
    real = batch.pop('real') > 0
    parts.append(np.asarray(apply(batch), np.float32)[real])
  return np.concatenate(parts)
