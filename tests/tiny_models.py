"""Tiny random models of many architectures, whose sizes all differ where they can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers as t

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKENS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
DECODER: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, **_TOKENS,
}  # fmt: skip
_ENCODER: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 32, **_TOKENS,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 8, "patch_size": 4,
}  # fmt: skip
_QWEN_MOE = {**DECODER, "moe_intermediate_size": 12, "num_experts": 3, "num_experts_per_tok": 2}
_DEEPSEEK = {
    **DECODER, "num_key_value_heads": 4, "moe_intermediate_size": 12, "n_routed_experts": 4,
    "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "kv_lora_rank": 6, "q_lora_rank": 10,
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 8, "first_k_dense_replace": 1,
}  # fmt: skip
GPT = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, **_TOKENS}


def _llava() -> t.LlavaConfig:
    return t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**VISION),
        text_config=t.LlamaConfig(**DECODER),
        image_token_index=5,
    )


def _qwen2_vl(kind: type[t.PretrainedConfig]) -> t.PretrainedConfig:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 1e4}
    text = {**DECODER, "rope_parameters": rope}
    vision = {
        "depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 4, "patch_size": 4,
        "intermediate_size": 24, "out_hidden_size": 16,
    }  # fmt: skip
    return kind(text_config=text, vision_config=vision)


def _gemma3() -> t.PretrainedConfig:
    return t.Gemma3Config(
        text_config={**DECODER, "head_dim": 6, "sliding_window": 8},
        vision_config=VISION,
        mm_tokens_per_image=4,
    )


def _clip(kind: type[t.PretrainedConfig]) -> t.PretrainedConfig:
    text = {k: v for k, v in _ENCODER.items() if not k.endswith("token_id")}
    return kind(text_config={**text, **_TOKENS}, vision_config=VISION, projection_dim=10)


def _blip2() -> t.PretrainedConfig:
    return t.Blip2Config(
        vision_config=VISION,
        qformer_config={**_ENCODER, "encoder_hidden_size": 16},
        text_config={
            "model_type": "opt", **_ENCODER, "ffn_dim": 24, "word_embed_proj_dim": 16,
        },
        num_query_tokens=3,
    )  # fmt: skip


MODELS: dict[str, Callable[[], t.PreTrainedModel]] = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**DECODER)),
    "llama-tied": lambda: t.LlamaForCausalLM(
        t.LlamaConfig(**DECODER, tie_word_embeddings=True)
    ),
    "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**DECODER)),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**DECODER)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**DECODER, head_dim=6)),
    "gemma": lambda: t.GemmaForCausalLM(t.GemmaConfig(**DECODER, head_dim=6)),
    "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**DECODER, head_dim=6)),
    "phi": lambda: t.PhiForCausalLM(t.PhiConfig(**DECODER)),
    "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**DECODER)),
    "olmo2": lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**DECODER)),
    "starcoder2": lambda: t.Starcoder2ForCausalLM(t.Starcoder2Config(**DECODER)),
    "hrm_text": lambda: t.HrmTextForCausalLM(t.HrmTextConfig(**DECODER)),
    "nomic_bert": lambda: t.NomicBertForMaskedLM(t.NomicBertConfig(**_ENCODER)),
    "gte": lambda: t.GteForMaskedLM(t.GteConfig(**_ENCODER)),
    "mixtral": lambda: t.MixtralForCausalLM(
        t.MixtralConfig(**DECODER, num_local_experts=3, num_experts_per_tok=2)
    ),
    "qwen2_moe": lambda: t.Qwen2MoeForCausalLM(
        t.Qwen2MoeConfig(**_QWEN_MOE, shared_expert_intermediate_size=20)
    ),
    "qwen3_moe": lambda: t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(**_QWEN_MOE, head_dim=6)),
    "olmoe": lambda: t.OlmoeForCausalLM(
        t.OlmoeConfig(**DECODER, num_experts=3, num_experts_per_tok=2)
    ),
    "deepseek_v3": lambda: t.DeepseekV3ForCausalLM(t.DeepseekV3Config(**_DEEPSEEK)),
    "granitemoe": lambda: t.GraniteMoeForCausalLM(
        t.GraniteMoeConfig(**DECODER, num_local_experts=3, num_experts_per_tok=2)
    ),
    "jamba": lambda: t.JambaForCausalLM(
        t.JambaConfig(
            **DECODER, num_experts=2, attn_layer_period=2, attn_layer_offset=1,
            expert_layer_period=2, expert_layer_offset=1, mamba_d_state=4, mamba_dt_rank=3,
            use_mamba_kernels=False,
        )
    ),
    "gpt_oss": lambda: t.GptOssForCausalLM(
        t.GptOssConfig(**DECODER, num_local_experts=3, num_experts_per_tok=2, head_dim=4)
    ),
    "llama4": lambda: t.Llama4ForCausalLM(
        t.Llama4TextConfig(
            **DECODER, num_local_experts=3, head_dim=4, intermediate_size_mlp=20,
        )
    ),
    "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**GPT, n_inner=24)),
    "gpt_bigcode": lambda: t.GPTBigCodeForCausalLM(t.GPTBigCodeConfig(**GPT, n_inner=24)),
    "gptj": lambda: t.GPTJForCausalLM(t.GPTJConfig(**GPT, rotary_dim=2, n_inner=24)),
    "gpt_neox": lambda: t.GPTNeoXForCausalLM(
        t.GPTNeoXConfig(**{k: v for k, v in DECODER.items() if k != "num_key_value_heads"})
    ),
    "falcon": lambda: t.FalconForCausalLM(
        t.FalconConfig(**_ENCODER, ffn_hidden_size=24, new_decoder_architecture=True)
    ),
    "bloom": lambda: t.BloomForCausalLM(
        t.BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=4, **_TOKENS)
    ),
    "opt": lambda: t.OPTForCausalLM(
        t.OPTConfig(**_ENCODER, ffn_dim=24, word_embed_proj_dim=10)
    ),
    "t5": lambda: t.T5ForConditionalGeneration(
        t.T5Config(vocab_size=40, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=2,
                   decoder_start_token_id=2, **_TOKENS)
    ),
    "bart": lambda: t.BartForConditionalGeneration(
        t.BartConfig(vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=2,
                     encoder_ffn_dim=24, decoder_ffn_dim=20, encoder_attention_heads=2,
                     decoder_attention_heads=2, max_position_embeddings=32,
                     decoder_start_token_id=1, forced_eos_token_id=1, **_TOKENS)
    ),
    "whisper": lambda: t.WhisperForConditionalGeneration(
        t.WhisperConfig(vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=2,
                        encoder_ffn_dim=24, decoder_ffn_dim=20, encoder_attention_heads=2,
                        decoder_attention_heads=2, num_mel_bins=6, max_source_positions=10,
                        max_target_positions=12, decoder_start_token_id=1, **_TOKENS)
    ),
    "bert": lambda: t.BertForMaskedLM(t.BertConfig(**_ENCODER)),
    "bert-classifier": lambda: t.BertForSequenceClassification(
        t.BertConfig(**_ENCODER, num_labels=3)
    ),
    "roberta": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**_ENCODER)),
    "distilbert": lambda: t.DistilBertForMaskedLM(
        t.DistilBertConfig(vocab_size=40, dim=16, hidden_dim=24, n_layers=2, n_heads=2,
                           max_position_embeddings=32)
    ),
    "albert": lambda: t.AlbertForMaskedLM(t.AlbertConfig(**_ENCODER, embedding_size=10)),
    "deberta": lambda: t.DebertaV2ForSequenceClassification(
        t.DebertaV2Config(**_ENCODER, num_labels=3)
    ),
    "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**VISION, num_labels=3)),
    "dinov2": lambda: t.Dinov2ForImageClassification(
        t.Dinov2Config(**{**VISION, "mlp_ratio": 2}, num_labels=3)
    ),
    "dinov2-swiglu": lambda: t.Dinov2ForImageClassification(
        t.Dinov2Config(**{**VISION, "mlp_ratio": 2, "use_swiglu_ffn": True}, num_labels=3)
    ),
    "swin": lambda: t.SwinForImageClassification(
        t.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2],
                     window_size=2, num_labels=3)
    ),
    "clip": lambda: t.CLIPModel(_clip(t.CLIPConfig)),
    "siglip": lambda: t.SiglipModel(_clip(t.SiglipConfig)),
    "llava": lambda: t.LlavaForConditionalGeneration(_llava()),
    "qwen2_vl": lambda: t.Qwen2VLForConditionalGeneration(_qwen2_vl(t.Qwen2VLConfig)),
    "qwen2_5_vl": lambda: t.Qwen2_5_VLForConditionalGeneration(_qwen2_vl(t.Qwen2_5_VLConfig)),
    "gemma3": lambda: t.Gemma3ForConditionalGeneration(_gemma3()),
    "blip2": lambda: t.Blip2ForConditionalGeneration(_blip2()),
    "wav2vec2": lambda: t.Wav2Vec2ForCTC(
        t.Wav2Vec2Config(**_ENCODER, conv_dim=(8, 8), conv_kernel=(3, 3), conv_stride=(2, 2),
                         num_feat_extract_layers=2, num_conv_pos_embeddings=4,
                         num_conv_pos_embedding_groups=2)
    ),
    "mamba": lambda: t.MambaForCausalLM(
        t.MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, state_size=4, **_TOKENS)
    ),
    "resnet": lambda: t.ResNetForImageClassification(
        t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], num_labels=3)
    ),
}  # fmt: skip


def build(name: str, seed: int = 0) -> t.PreTrainedModel:
    """Return a tiny model whose every parameter is random."""
    torch.manual_seed(seed)
    return randomised(MODELS[name]())


def randomised(model: t.PreTrainedModel) -> t.PreTrainedModel:
    """Return a model with noise in every parameter, so that no two are equal by chance."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()
