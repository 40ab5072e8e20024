"""token, namespace and audit, on the embedded registry."""

from command_line import Run, answer


def test_tokens_are_made_listed_and_revoked(run: Run) -> None:
    made = run("token", "create", "ci", "read", "push:acme", "--days", "3").stdout
    assert made.startswith("rl_")
    (listed,) = answer(run("token", "list", "--json"))
    assert listed["grants"] == ["push:acme", "read"] or listed["grants"] == ["read", "push:acme"]
    assert made.strip() not in run("token", "list").stdout
    run("token", "create", "ci", "read", code=5)
    run("token", "create", "x", "everything", code=2)
    run("token", "revoke", "ci")
    run("token", "revoke", "ci", code=4)


def test_rules_that_are_not_named_stay(run: Run) -> None:
    assert answer(run("namespace", "show", "acme", "--json"))["anonymous_read"] is False
    run("namespace", "set", "acme", "--anonymous-read")
    assert answer(run("namespace", "set", "acme", "--json"))["anonymous_read"] is True
    run("namespace", "set", "acme", "--keep-versions", "3", "--keep-days", "0")
    rules = answer(run("namespace", "show", "acme", "--json"))
    assert (rules["keep_versions"], rules["keep_days"], rules["anonymous_read"]) == (3, 0, True)
    assert answer(run("namespace", "set", "acme", "--keep-all", "--json"))["keep_versions"] is None
    run("namespace", "set", "acme", "--protect", "prod", "--protect", "stable")
    rules = answer(run("namespace", "set", "acme", "--unprotect", "stable", "--json"))
    assert rules["protected_aliases"] == ["prod"]
    run("namespace", "show", "A", code=2)


def test_the_audit_log_tells_who_did_what(run: Run) -> None:
    run("push", "./zh", "zh", "--base", "./base", "--alias", "prod")
    actions = [line["action"] for line in answer(run("audit", "--json"))]
    assert actions == ["alias.move", "version.publish", "base.add"]
    assert "prod" in run("audit", "--namespace", "default", "--limit", "1").stdout
