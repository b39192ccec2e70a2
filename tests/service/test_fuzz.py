"""The API asked at random, as its own description says and as it does not: no answer is a 500."""

from contextlib import suppress

import pytest
import requests
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from service.conftest import TOKEN, MakeServer

EXAMPLES = 12  # of each operation and mode
BASE = "http://127.0.0.1:8000"
SETTINGS = settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def ask(client: TestClient, case: Case) -> None:
    asked = case.as_transport_kwargs(base_url=BASE, headers={"authorization": f"Bearer {TOKEN}"})
    try:
        sent = requests.Request(**asked).prepare()
    except requests.RequestException:  # nothing that HTTP could carry
        return
    answer = client.request(
        str(sent.method), str(sent.url), content=sent.body or b"", headers=dict(sent.headers), follow_redirects=False
    )
    assert answer.status_code < 500, (case.as_curl_command(), answer.text)
    if answer.status_code >= 400:
        assert answer.json()["error"]
    case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_no_question_breaks_the_service(serve: MakeServer, mode: GenerationMode) -> None:
    client = serve(requests_per_minute=1e9)
    described = schemathesis.openapi.from_dict(client.get("/api/v1/openapi.json").json())
    asked = []
    for found in described.get_all_operations():
        operation = found.ok()
        if operation.path in ("/api/v1/login", "/api/v1/logout"):  # slowed down on purpose; tested elsewhere
            continue

        @SETTINGS
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Case) -> None:
            ask(client, case)

        with suppress(Unsatisfiable):  # nothing to get wrong, e.g. in asking for health
            check()
            asked.append(operation.label)
    assert len(asked) >= (18 if mode is GenerationMode.POSITIVE else 10), asked
