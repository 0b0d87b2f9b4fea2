# vLLM with what it needs to decode audio. Without it, every request with audio is answered
# "Invalid or unsupported audio file".
# For DGX Spark and Jetson give NVIDIA's image of vLLM for them, 0.20 or newer (not tried):
#   OMNI_BASE=IMAGE docker compose --profile gpu build vllm
ARG BASE=vllm/vllm-openai:v0.20.0
FROM ${BASE}
# Asked for in the version that is there, pip adds what the extra lacks and leaves vLLM as it is: that
# of an image for a special machine may be built for it, and then no registry has the same.
RUN python3 -m pip install --no-cache-dir \
    "vllm[audio]==$(python3 -c 'from importlib.metadata import version; print(version("vllm"))')"
# Under this scheduler chunks begin together, which on an H200 is a quarter more a second.
COPY asr/engines/omni/gather.py /opt/asr/vllm_gather.py
ENV PYTHONPATH=/opt/asr${PYTHONPATH:+:$PYTHONPATH}
