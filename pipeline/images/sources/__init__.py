"""The bytes of images where they lie: in archives, in tables of bytes, on other machines."""
