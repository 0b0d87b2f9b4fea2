"""What `run_vllm` runs inside vLLM's worker process."""

import torch


def embeddings(features, mask, n_clips, model):
    """Run the audio encoder and the projection on a batch of recordings.

    Args:
        features: of the clips of all recordings, one after the other.
        mask: the valid frames of each clip.
        n_clips: the number of clips of each recording.
        model: vLLM's model.
    """
    inputs = {
        "input_audio_features": torch.from_numpy(features),
        "feature_attention_mask": torch.from_numpy(mask),
        "audio_num_clips": torch.tensor(n_clips),
    }
    with torch.inference_mode():
        return [it.float().numpy() for it in model.embed_multimodal(**inputs)]


def positions(model):
    """The frequencies from which the encoder computes its position embeddings."""
    return model.sound_encoder.encoder.encode_positions.inv_freq.float().numpy()
