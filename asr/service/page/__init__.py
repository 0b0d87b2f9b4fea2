"""The web page at ``/``, and the routes that it needs: listen to a job and correct its transcript.

Modules in reading order:

    static.py       the files of the page, and of the interactive documentation
    ranged.py       answers from which clients fetch parts (Range)
    media.py        the recording of a job: prepared once, then cut, drawn and played
    media_routes.py     its routes
    view.py         a transcript as the page shows it
    saving.py       receives a corrected transcript
    realign.py      times for the changed words of a line
    transcript_routes.py   the routes of transcripts
    router.py       all routes together
"""
