# vLLM with the packages that decode audio. Without them every request with audio is answered
# "Invalid or unsupported audio file".
# For DGX Spark and Jetson use NVIDIA's image of vLLM, 0.20 or newer, as the base (not tried):
#   OMNI_BASE=IMAGE docker compose --profile gpu build vllm
ARG BASE=vllm/vllm-openai:v0.20.0
FROM ${BASE}
# pip is asked for the installed version, so it adds the packages of the extra and keeps vLLM. The vLLM in an
# image for a special machine may be built for it, and no registry has that build.
RUN python3 -m pip install --no-cache-dir \
    "vllm[audio]==$(python3 -c 'from importlib.metadata import version; print(version("vllm"))')"
# With this scheduler chunks begin together, which on an H200 gives a quarter more chunks per second.
COPY asr/engines/omni/gather.py /opt/asr/vllm_gather.py
ENV PYTHONPATH=/opt/asr${PYTHONPATH:+:$PYTHONPATH}
