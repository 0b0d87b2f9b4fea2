"""The routes of other speech servers, so that their clients work unchanged.

They translate a request into the fields of ``POST /v1/audio/transcriptions`` and share everything
else with that route: admission, keys, limits and errors. Read in this order:

    routes        the HTTP routes and their description for OpenAPI
    receive       receives the body, asks a dialect for the translation, and wraps raw PCM
    fields        takes the fields of another API one by one; none is lost silently
    whisper_asr   the dialect of whisper-asr-webservice: ``/asr``, ``/detect-language``
    whisper_cpp   the dialect of whisper.cpp's server: ``/inference``
    answers       what the answers of both dialects have in common
"""
