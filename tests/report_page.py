"""Checks by parsing that the page of a report is self-contained."""

import base64
import html.parser

VOID = ('img', 'meta', 'br', 'hr', 'link', 'input')
PICTURE = 'data:image/png;base64,'


class Page(html.parser.HTMLParser):
  """Collects the references, text, ids and pictures of a page, and whether its tags close."""

  def __init__(self, text):
    super().__init__()
    self.open, self.links, self.text, self.ids, self.tags, self.pictures, self.wrong = (
      [],
      [],
      [],
      [],
      [],
      [],
      [],
    )
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.append(tag)
    self.links += [
      attrs[name] for name in ('src', 'href', 'srcset', 'action', 'data') if name in attrs
    ]
    self.ids += [attrs['id']] if 'id' in attrs else []
    self.pictures += [attrs] if tag == 'img' else []
    self.wrong += [f'{name} on {tag}' for name in attrs if name.startswith('on')]
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    if not self.open or self.open.pop() != tag:
      self.wrong.append(f'</{tag}> closes nothing')

  def handle_data(self, data):
    self.text.append(data)


def problems(text):
  """Lists the reasons why a page is not self-contained; empty if it is."""
  page = Page(text)
  found = list(page.wrong) + [f'<{tag}> is never closed' for tag in page.open]
  for link in page.links:
    if link.startswith('#'):
      found += [] if link[1:] in page.ids else [f'no id for {link}']
    elif not link.startswith(PICTURE):
      found.append(f'outside: {link[:60]}')
  found += [
    f'id {name!r} twice' for name in {name for name in page.ids if page.ids.count(name) > 1}
  ]
  for picture in page.pictures:
    data = base64.b64decode(picture.get('src', '').removeprefix(PICTURE) or b'')
    found += (
      []
      if data.startswith(b'\x89PNG\r\n\x1a\n') and data[-8:-4] == b'IEND'
      else ['a picture is missing']
    )
    found += [] if picture.get('alt', '').strip() else ['a picture without words for it']
  found += [
    f'<{tag}>' for tag in ('script', 'iframe', 'object', 'embed', 'link') if tag in page.tags
  ]
  style = text.split('<style>')[1].split('</style>')[0] if '<style>' in text else ''
  found += [word for word in ('url(', '@import', 'http:', 'https:') if word in style]
  return found
