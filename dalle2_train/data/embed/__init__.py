"""Makes embedded sets: from shards by a CLIP, or out of what others have embedded."""
