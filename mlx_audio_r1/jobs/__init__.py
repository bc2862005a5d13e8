"""Many and long recordings: what `audio-r1 batch` and `audio-r1 transcribe` do, without the terminal."""
