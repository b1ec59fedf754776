"""HTTP requests as tools: one request a call, to hosts that the worker allows."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace

import httpx2

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import MAX_BYTES, CallContext, ResolveSecrets, ToolText
from mandate.activities.toolbox.http.hosts import AllowedHosts, HostRefused, LookUp, find_host, look_up
from mandate.activities.toolbox.http.request import HttpCall, RunValues, build_call, check_header
from mandate.activities.toolbox.http.response import ERROR_BYTES, build_result, describe_error, read_body
from mandate.activities.toolbox.redaction import SecretValues
from mandate.activities.trace_context import TRACE_HEADERS
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.templates import fill_references
from mandate.workflows.contracts.tool import Effect, HttpBinding, ToolDefinition

MAX_REDIRECTS = 5
_CONNECT_SECONDS = 10.0


@dataclass(slots=True)
class _Attempt:
    """Progress of one request."""

    deadline: float
    sent: bool = False

    async def trace(self, event: str, _info: Mapping[str, object]) -> None:
        self.sent = self.sent or event == "http11.send_request_headers.started"

    def make_error(self, reason: str) -> ToolError:
        return ToolError(Outcome.UNKNOWN if self.sent else Outcome.NOT_SENT, reason)


class HttpToolbox:
    """Tools with an `HttpBinding`.

    Every call has a connection of its own, to the very address that was checked: nothing is shared between hosts,
    and no stale connection makes an outcome unknown. Proxies of the environment are not used, since behind one the
    address could not be checked; cookies are not kept. A definite refusal (4xx) is a result with `error`, so that
    the model reads it in the server's words; 429, and 422 to a key, are `ToolError`s.
    """

    def __init__(
        self,
        resolve: ResolveSecrets,
        *,
        allowed_hosts: tuple[str, ...],
        max_bytes: int = MAX_BYTES,
        look_up: LookUp = look_up,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """Take the hosts; raise `ValueError` for an entry of `allowed_hosts` that is none; see `AllowedHosts`."""
        self._resolve = resolve
        self._hosts = AllowedHosts(allowed_hosts, look_up)
        self._max_bytes = max_bytes
        self._verify = verify
        self._transport: httpx2.AsyncHTTPTransport | None = None

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        """Make one request, with the redirects of a read; raise as `Toolbox.call`."""
        binding = definition.binding
        assert isinstance(binding, HttpBinding)
        secrets = SecretValues(self._resolve)
        try:
            values = RunValues(context.idempotency_key, context.workflow_id, context.requester)
            call = build_call(binding, arguments, values)
            headers = _headers(binding, secrets, definition.tool.effect, values)
        except (ValueError, LookupError) as error:
            raise ToolError(Outcome.NOT_SENT, str(error.args[0] if error.args else error), lasting=True) from None
        attempt = _Attempt(asyncio.get_running_loop().time() + context.timeout.total_seconds())
        try:
            response = await self._answer(call, headers, definition.tool.effect, attempt)
            try:
                large = self._max_bytes if response.status_code < 300 else ERROR_BYTES
                body = await read_body(response, large, attempt.deadline)
            finally:
                await response.aclose()
            return build_result(
                response, body, effect=definition.tool.effect, secrets=secrets, head=call.method == "HEAD"
            )
        except ToolError as error:
            reason, wait = secrets.strike(error.whole), error.retry_after
            raise ToolError(
                error.outcome, reason, retry_after=wait, is_of_key=error.is_of_key, lasting=error.lasting
            ) from None

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    async def _answer(
        self, call: HttpCall, headers: Mapping[str, str], effect: Effect, attempt: _Attempt
    ) -> httpx2.Response:
        """Return the first answer that is no redirect to follow; its body is still to be read."""
        where = f"{call.method} {find_host(call.url)}"
        try:
            async with asyncio.timeout_at(attempt.deadline):
                for _ in range(MAX_REDIRECTS):
                    response = await self._send(call, headers, attempt)
                    target = _redirect(response, call, effect)
                    if target is None:
                        return response
                    await response.aclose()
                    call = replace(call, url=target)
                return await self._send(call, headers, attempt)
        except HostRefused as error:
            raise ToolError(Outcome.NOT_SENT, str(error), lasting=True) from None
        except TimeoutError:
            raise attempt.make_error(f"{where}: no answer in time") from None
        except OSError:
            raise attempt.make_error(f"{where}: the name of the host is not known") from None
        except httpx2.TransportError as error:
            raise attempt.make_error(f"{where}: {describe_error(error)}") from None

    async def _send(self, call: HttpCall, headers: Mapping[str, str], attempt: _Attempt) -> httpx2.Response:
        if self._transport is None:
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
            self._transport = httpx2.AsyncHTTPTransport(verify=self._verify, trust_env=False, limits=limits)
        addresses = await self._hosts.addresses(call.url)
        seconds = max(attempt.deadline - asyncio.get_running_loop().time(), 0.001)
        timeout = {"connect": min(_CONNECT_SECONDS, seconds), "read": seconds, "write": seconds, "pool": seconds}
        extensions = {"timeout": timeout, "trace": attempt.trace, "sni_hostname": find_host(call.url)}
        netloc = call.url.netloc.decode("ascii")
        for position, address in enumerate(addresses):
            request = httpx2.Request(
                call.method,
                call.url.copy_with(host=address),
                headers=[
                    *((name.encode(), value.encode()) for name, value in headers.items()),
                    (b"Host", netloc.encode()),
                ],
                content=call.body,
                extensions=extensions,
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if position == len(addresses) - 1:
                    raise
        raise OSError("no address")


def _headers(binding: HttpBinding, secrets: SecretValues, effect: Effect, values: RunValues) -> dict[str, str]:
    def resolve(name: str) -> str | None:
        return secrets.fill(f"${{{name}}}") if name.startswith("secret:") else values.find(name)

    headers = {"Accept": "application/json, text/*;q=0.9, */*;q=0.5", "User-Agent": "mandate", **TRACE_HEADERS.get()}
    if binding.method not in ("GET", "HEAD"):
        headers["Content-Type"] = "application/json"
    names = {name.lower(): name for name in headers}
    for name, template in binding.headers.items():
        # In one pass: what a requester is called names no secret.
        value = fill_references(template, resolve).strip(" \t")
        check_header(name, value)
        headers.pop(names.get(name.lower(), ""), None)
        headers[name] = value
    # A packed answer could unpack to more than the size limit in one step.
    headers["Accept-Encoding"] = "identity"
    if effect.changes_world:
        headers["Idempotency-Key"] = values.key
    return headers


def _redirect(response: httpx2.Response, call: HttpCall, effect: Effect) -> httpx2.URL | None:
    """Return the address to which a read is redirected: only on the same scheme, host and port."""
    location = response.headers.get("location")
    if effect.changes_world or call.method not in ("GET", "HEAD") or location is None:
        return None
    if response.status_code not in (301, 302, 303, 307, 308):
        return None
    try:
        target = call.url.join(location)
    except httpx2.InvalidURL:
        return None
    same = (target.scheme, target.host, target.port) == (call.url.scheme, call.url.host, call.url.port)
    return target.copy_with(fragment=None) if same and not target.userinfo else None
