"""Marks for workflow code: the functions that let it use the installation's keys, which stay outside of the sandbox."""

from temporalio.worker import Interceptor, WorkflowInboundInterceptor, WorkflowInterceptorClassInput

from mandate.activities.keyring import Keyring
from mandate.workflows.marks import MarkFunctions


class MarkInterceptor(Interceptor):
    """Interceptor that offers a worker's keyring to its workflow code."""

    def __init__(self, keyring: Keyring, store: str) -> None:
        """Take `store`, the id of the keyring's store."""
        self._functions = MarkFunctions(
            mandate_store=lambda: store, mandate_sign=keyring.sign, mandate_is_genuine=keyring.is_genuine
        )

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - the SDK's name
    ) -> type[WorkflowInboundInterceptor] | None:
        input.unsafe_extern_functions.update(**self._functions)
        return None
