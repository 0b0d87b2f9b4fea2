"""Tell speakers apart by their voices.

In reading order: `windows` (cut windows at the gaps between words), `fbank` and `model` (an
embedding for each window), `clustering` (windows to voices), `scores` (voices to words), `naming`,
`labels` (all of it for one channel), `diariser` (the same in child processes), `enrolment`
(known voices). `folder`, `install`, `tensors` and `campplus` bring the model to this machine,
`thresholds` holds its numbers.

The package knows nothing of engines, formats, jobs or HTTP.
"""
