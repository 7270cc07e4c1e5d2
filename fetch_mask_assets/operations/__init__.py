"""Operations that people run: each with its rules and its SQL."""
