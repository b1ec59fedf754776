"""Rules of sessions: messages that are known, replies that are kept, and the state that a later run goes on from."""

from collections.abc import Sequence
from datetime import timedelta

from mandate.workflows.contracts.run import RunResult
from mandate.workflows.contracts.session import IDS_KEPT, REPLIES_CHARACTERS, Reply, ReplyStatus, SessionRecord
from mandate.workflows.contracts.state import RunState, SessionState

TOO_LONG_AGO = "it was answered; the answer is in the conversation, which `mandate show` tells"


def is_known(state: SessionState, message_id: str) -> bool:
    """Return whether a message has come before."""
    waiting = (message.id for message in (*state.telling, *state.now, *state.queue))
    return message_id in state.replies or message_id in state.told or message_id in waiting


def keep_replies(
    replies: dict[str, Reply], ids: Sequence[str], result: RunResult, status: ReplyStatus, step: int
) -> dict[str, Reply]:
    """Return `replies` with that to all messages of `ids`; of old ones the texts go first, then the ids."""
    text = result.output if isinstance(result.output, str) else None
    output = None if isinstance(result.output, str) else result.output
    kept = dict(replies)
    for message_id in ids:
        kept.pop(message_id, None)
        kept[message_id] = Reply(
            id=message_id,
            status=status,
            text=text,
            output=output,
            output_digest=result.output_digest,
            reason=result.reason,
            step=step,
        )
    kept = dict(list(kept.items())[-IDS_KEPT:])
    room = REPLIES_CHARACTERS
    for message_id, reply in reversed(kept.items()):
        size = len(reply.model_dump_json())
        room -= size
        if room < 0 and (reply.text is not None or reply.output is not None):
            kept[message_id] = reply.model_copy(update={"text": None, "output": None, "reason": TOO_LONG_AGO})
    return kept


def write_record(state: RunState, run_id: str) -> SessionRecord:
    """Return what a later run of the same session goes on from."""
    assert state.session is not None
    kept = state.model_copy(
        update={
            "calls": (),
            "answers": (),
            "verdicts": (),
            "edits": {},
            "notes": {},
            "asked": {},
            "signed": {},
            "unclear": {},
            "waits": {},
            "children": {},
            "resolutions": {},
            "recent": (),
            "last_answer": None,
        }
    )
    return SessionRecord(number=state.session.number, run_id=run_id, state=kept.model_dump_json(exclude_defaults=True))


def resume(earlier: RunState, begun: RunState) -> RunState:
    """Return the state of a run that goes on with the session of an earlier one, under its own agent and limits.

    What the session has spent, done and read counts on; requests, failures and commands of people were of the earlier
    run.
    """
    session = earlier.session
    assert session is not None
    assert begun.session is not None
    waited, since = earlier.ledger.waited, session.waits_since or earlier.ledger.waits_since
    if since is not None and begun.ledger.began_at is not None:
        waited += max(begun.ledger.began_at - since, timedelta(0))
    ledger = earlier.ledger.model_copy(update={"held": {}, "waited": waited, "waits_since": None})
    return begun.model_copy(
        update={
            "head": begun.head,
            "goal": earlier.goal or begun.goal,
            "step": earlier.step,
            "totals": earlier.totals,
            "tainted": earlier.tainted or begun.tainted,
            "usage": earlier.usage,
            "ledger": ledger,
            "period_cost_usd": earlier.period_cost_usd,
            "context_tokens": earlier.context_tokens,
            "estimate": earlier.estimate,
            "kept_in_mind": earlier.kept_in_mind,
            "effects": earlier.effects,
            "uncertain": (),
            "uncertain_below": earlier.uncertain_below,
            "children_made": earlier.children_made,
            "child_ids_taken": earlier.child_ids_taken,
            "quick": begun.quick or earlier.quick,
            # A run that was ended from outside has told of its own already.
            "origin": begun.origin or earlier.origin,
            "session": session.model_copy(
                update={
                    "idle": begun.session.idle,
                    "waits_since": begun.ledger.began_at,
                    # No conversation has what a model was being told as its run was ended from outside.
                    "now": (*session.telling, *session.now),
                    "telling": (),
                }
            ),
        }
    )
