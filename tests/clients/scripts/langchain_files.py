"""LangChain's OpenAIWhisperParser, which sends mp3 in pieces."""

from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser
from langchain_core.documents.base import Blob
from report import AUDIO, BASE, KEY, report

parser = OpenAIWhisperParser(api_key=KEY, base_url=BASE, language="en", temperature=0)
report("json", " ".join(page.page_content for page in parser.lazy_parse(Blob.from_path(AUDIO))))
