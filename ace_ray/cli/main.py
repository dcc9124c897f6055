"""From the command line to a verb and an exit code."""

import errno
import sys
from collections.abc import Sequence

from ace_ray.cli.parser import make_parser, parse
from ace_ray.config.errors import AceError

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # what a disk says in the middle of the work


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0: done; 1: done, and the answer is no (`ace replay verify`, `ace doctor`); the error's own code (2, or 3 for a
        lost worker) for a problem that the user can fix; 130 after Ctrl-C.
    """
    parser = make_parser()
    try:
        args = parse(parser, sys.argv[1:] if argv is None else list(argv))
    except AceError as error:  # an output that cannot be written
        print(f"ace: {error}", file=sys.stderr)
        return error.exit_code
    from ace_ray.cli import verbs  # after parsing: --help and --version need none of it
    from ace_ray.monitoring.logging import set_up_logging
    from llm_service.errors import LLMServiceError

    set_up_logging(args.verbose)
    try:
        return int(getattr(verbs, args.verb)(args))
    except (AceError, LLMServiceError) as error:
        print(f"ace: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `ace … | head`: the reader has what it wanted
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = f" ({error.filename})" if error.filename else ""
        print(f"ace: {error.strerror}{place}\n  remedy: free space, or write to another disk", file=sys.stderr)
        return AceError.exit_code
