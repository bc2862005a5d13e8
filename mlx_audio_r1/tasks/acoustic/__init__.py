"""An endless task: synthetic clips whose truth is known, and questions about them.

    from mlx_audio_r1.tasks.acoustic.world import make_clip
    from mlx_audio_r1.tasks.acoustic.questions import make_question
    clip = make_clip(seed=7)
    question = make_question(clip.truth, seed=7)
"""
