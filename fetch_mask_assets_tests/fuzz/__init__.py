"""Whatever comes in: what must hold for any text, and two fuzzers that look for one that breaks it.

Hypothesis runs with the tests; atheris runs by hand, for as long as one likes (`make fuzz`).
"""
