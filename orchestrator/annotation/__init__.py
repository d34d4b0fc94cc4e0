"""What people say of adversarial images: a sheet of images, answers of several annotators, and what they add up to.

Matyasko 2020, section 4.4.3: if a model is robust, an adversarial image that fools it should change people's minds too.
"""
