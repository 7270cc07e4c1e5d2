"""The upgrade of MD5 digests to tokens."""
