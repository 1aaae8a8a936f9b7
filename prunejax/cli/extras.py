"""Packages of the optional extras: one line reports a missing one and how to install it."""

import importlib.util

# The extra of pyproject.toml that brings each importable package; '' for a dependency of the core.
EXTRAS = {
  'jax': '',
  'numpy': '',
  'optax': '',
  'flax': 'train',
  'transformers': 'train',
  'tokenizers': 'train',
  'safetensors': 'train',
  'tensorflow_datasets': 'train',
  'importlib_resources': 'train',
  'grain': 'train',
  'orbax': 'train',
  'etils': 'train',
  'ml_collections': 'train',
  'tensorboardX': 'train',
  'rich': 'train',
  'matplotlib': 'train',
  'scipy': 'train',
  'sklearn': 'train',
  'sacrebleu': 'train',
  'onnx': 'onnx',
  'onnxruntime': 'onnx',
  'gguf': 'gguf',
  'lm_eval': 'lm-eval',
  'gcsfs': 'gcs',
}
# Packages that most runs use. They are looked for before anything starts, so that a run of hours
# does not fail when it draws its report. The others are needed by single features.
REQUIRED = {
  'train': (
    'flax',
    'transformers',
    'tokenizers',
    'safetensors',
    'orbax.checkpoint',
    'etils',
    'ml_collections',
    'grain',
    'scipy',
    'tensorboardX',
    'matplotlib',
  ),
}


def require(extra: str):
  """Looks for the packages of an extra, without importing them.

  Args:
    extra: a name of REQUIRED.

  Raises:
    ValueError: a package is missing; the message says how to install the extra.
  """
  for name in REQUIRED[extra]:
    try:
      spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # the package around a submodule is missing
      spec = None
    if spec is None:
      raise ValueError(f'{name} is not installed: {_command(extra)}')


def advice(error: ImportError) -> str:
  """What to do about a failed import.

  Args:
    error: an exception of an import statement.

  Returns:
    One line with the command that installs the package, or '' when the package belongs to no
    extra: then the error is a defect, such as a wrong import within this project.
  """
  package = (error.name or '').partition('.')[0]
  if package not in EXTRAS:
    return ''
  problem = 'is not installed' if isinstance(error, ModuleNotFoundError) else 'cannot be imported'
  return f'{package} {problem} ({error}): {_command(EXTRAS[package])}'


def _command(extra):
  return f"python -m pip install -e '.[{extra}]'" if extra else 'python -m pip install -e .'
