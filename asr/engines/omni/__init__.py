"""Nemotron-3-Nano-Omni: over HTTP on vLLM and similar servers, or in this process."""
