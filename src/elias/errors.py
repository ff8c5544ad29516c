"""Every error that ELIAS raises on purpose, in one tree.

EliasError
├── UserError                 exit 2   you can fix it: bad input, bad config, a missing package
│   ├── ConfigError
│   ├── InputError            a file or line that cannot be read; the good part was kept
│   ├── MissingPackage        an extra that is not installed
│   └── PortInUse
├── NotFound                  exit 3   no such session, corpus, run, model, base
├── Refused                   exit 4   a rule said no
│   ├── LabelForbids          the data's label does not allow that place
│   ├── GateRefused           the candidate did not beat the model in service
│   ├── QuotaExhausted
│   └── BudgetExhausted
│       └── OverBudget        it would pass a cap on money, which it names
├── VerificationError         exit 4   something is not what it claims to be
│   ├── DigestMismatch        bytes differ from their digest; names the file
│   ├── BadSignature
│   ├── BadReceipt
│   └── BadStructure          an adapter's tensors are not the expected ones
└── WorldError                exit 5   the other side failed
    ├── BackendError          a training place; carries a failure kind
    │   └── NotStarted        the place is certain that nothing was begun there, and nothing will be billed
    ├── EngineError           an inference engine
    └── StoreError            a database or a disk
        └── DiskFull          there is less room than what comes next needs; not worth a retry as it is

Exit 0 is success and exit 1 is a bug: an exception that is not an EliasError.
"""

from __future__ import annotations

from typing import ClassVar


class EliasError(Exception):
    """What happened, what is safe, and what to type next.

    `fix` is the command or edit that helps; `kept` says what was not lost.
    """

    exit_code: ClassVar[int] = 1
    is_worth_retry: ClassVar[bool] = False

    def __init__(self, what: str, *, fix: str, kept: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.kept = kept

    @property
    def code(self) -> str:
        """The error's stable name in `--json` output and in the API."""
        return type(self).__name__


class UserError(EliasError):
    exit_code = 2


class ConfigError(UserError):
    pass


class InputError(UserError):
    pass


class MissingPackage(UserError):
    pass


class PortInUse(UserError):
    pass


class NotFound(EliasError):
    exit_code = 3


class Refused(EliasError):
    exit_code = 4


class LabelForbids(Refused):
    pass


class GateRefused(Refused):
    pass


class QuotaExhausted(Refused):
    is_worth_retry = True


class BudgetExhausted(Refused):
    pass


class OverBudget(BudgetExhausted):
    def __init__(self, what: str, *, fix: str, cap: str, kept: str | None = None) -> None:
        super().__init__(what, fix=fix, kept=kept)
        self.cap = cap
        """`run`, `day`, `month` or `account`."""


class VerificationError(EliasError):
    exit_code = 4


class DigestMismatch(VerificationError):
    pass


class BadSignature(VerificationError):
    pass


class BadReceipt(VerificationError):
    pass


class BadStructure(VerificationError):
    pass


class WorldError(EliasError):
    exit_code = 5
    is_worth_retry = True


class BackendError(WorldError):
    pass


class NotStarted(BackendError):
    """Only for a backend that has made sure: under this key nothing runs there, whatever was tried before."""


class EngineError(WorldError):
    pass


class StoreError(WorldError):
    pass


class DiskFull(StoreError):
    is_worth_retry = False
