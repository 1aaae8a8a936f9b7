"""TFDS builders of tiny local data sets: GLUE from raw files, Wikipedia and LM1B from texts."""

import tensorflow_datasets
import tensorflow_datasets.text.glue as stock_glue


def local_glue(raw):
  class LocalGlue(stock_glue.Glue, skip_registration=True):
    name = 'glue'
    pkg_dir_path = None

    def _split_generators(self, dl_manager):
      class Local:
        def download_and_extract(self, url):
          return str(raw)

        def download(self, urls):
          return urls

      return super()._split_generators(Local())

  return LocalGlue


def text_corpus(dataset, texts, config=None):
  features = {'text': tensorflow_datasets.features.Text()}
  if dataset == 'wikipedia':
    features['title'] = tensorflow_datasets.features.Text()

  class Corpus(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
    name = dataset
    pkg_dir_path = None
    VERSION = tensorflow_datasets.core.Version('1.0.0' if dataset == 'wikipedia' else '1.1.0')
    BUILDER_CONFIGS = [tensorflow_datasets.core.BuilderConfig(name=config)] if config else []

    def _info(self):
      return tensorflow_datasets.core.DatasetInfo(
        builder=self, features=tensorflow_datasets.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples(None)}

    def _generate_examples(self, path):
      for i, text in enumerate(texts):
        yield i, {'text': text, 'title': str(i)} if 'title' in features else {'text': text}

  return Corpus
