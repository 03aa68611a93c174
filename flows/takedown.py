"""The flow `takedown`: pictures, addresses, hosts or likenesses, gone from everything below a root."""

from __future__ import annotations

from prefect import flow


@flow(name="takedown", flow_run_name="takedown", persist_result=False)
def takedown(
    urls: list[str] | None = None,
    hosts: list[str] | None = None,
    sha256s: list[str] | None = None,
    like: list[str] | None = None,
    person_like: list[str] | None = None,
    root: str | None = None,
    near_bits: int = 3,
    similarity: float = 0.4,
) -> None:
    """Remove for good what the parameters name; without any, finish a takedown that was interrupted.

    Nothing is asked: look with `gptface takedown --dry-run` first. Prefect keeps a run's parameters in its own
    database: delete the flow run afterwards, or use the command line, where addresses must leave no trace there.

    Args:
        urls: addresses of pictures or pages.
        hosts: names such as example.org.
        sha256s: hashes of pictures' bytes.
        like: picture files; they and what looks the same.
        person_like: picture files with one face each; needs a recogniser.
        root: dataset root; GPTFACE_ROOT, else ./gptface-data.
        near_bits: in how many bits hashes of `like` may differ.
        similarity: cosine from which faces count as the same person's.
    """
    from flows.prefect_runner import PrefectRunner
    from flows.steps.config import chosen_root
    from flows.steps.takedown import TakedownConfig, take_down

    config = TakedownConfig(
        root=chosen_root(root),
        urls=tuple(urls or ()),
        hosts=tuple(hosts or ()),
        sha256s=tuple(sha256s or ()),
        like=tuple(like or ()),
        person_like=tuple(person_like or ()),
        near_bits=near_bits,
        similarity=similarity,
    )
    with PrefectRunner() as runner:
        take_down(config, runner)
