"""The ways a command may end badly by design; anything else is our own fault (exit code 1)."""


class InputError(ValueError):
    """What the user gave cannot be used. The message names what, the value and the remedy (exit code 2)."""


class RefusedError(RuntimeError):
    """Evidence speaks against going on: faults found, a policy unmet, a failed verification (exit code 3)."""


class PreemptedError(RuntimeError):
    """The work stopped at a safe point because it was told to; the same command goes on (exit code 75)."""


EXIT_PREEMPTED = 75
EXIT_CODES: dict[type[BaseException], int] = {
    InputError: 2,
    RefusedError: 3,
    PreemptedError: EXIT_PREEMPTED,
    KeyboardInterrupt: 130,
}
INTERRUPTED = "interrupted; give the same command again"


def exit_code(error: BaseException) -> int:
    """Of a program that ends with one of the errors above."""
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))


def with_article(noun: str) -> str:
    """`noun` after its "a" or "an", for a message."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
