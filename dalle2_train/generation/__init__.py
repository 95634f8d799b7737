"""From text to pictures: text → prior → decoder → upsampler, and the sheets they are shown on."""
