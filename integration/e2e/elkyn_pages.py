"""Pages of a real browser that have `@sennit/elkyn` at hand."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import BrowserContext, Page

_PROLOGUE = """
  const elkyn = await import('/dist/elkyn.js')
  const { ElkynClient, ElkynStore, sharedStreams, socketStreams, openStream } = elkyn
  const until = async (holds) => {
    while (!(await holds())) await new Promise((done) => setTimeout(done, 10))
  }
"""
_SECONDS_MAX = 60


class Pages:
    """Opens pages of one browser; what they leave uncaught ends up in `errors`."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context = context
        self.address = address
        self.errors: list[str] = []
        context.set_default_timeout(15_000)

    def open(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{self.address}/blank.html")
        return page


def run(page: Page, body: str, argument: Any = None) -> Any:
    """Run the body of an async function that has the package's names; it must end soon."""
    return page.evaluate(
        f"""async (argument) => {{
          const work = async () => {{ {_PROLOGUE} {body} }}
          let timer
          const timeout = new Promise((_done, fail) => {{
            timer = setTimeout(() => fail(new Error('it timed out')), {_SECONDS_MAX * 1000})
          }})
          try {{
            return await Promise.race([work(), timeout])
          }} finally {{
            clearTimeout(timer)
          }}
        }}""",
        argument,
    )
