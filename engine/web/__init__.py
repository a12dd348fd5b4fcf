"""See it: a ledger as one page, as a file (`report`) and live (`watch`). May import the ledger, the model and errors.

`view.View` folds lines into what is shown, `page.page` makes the HTML, `report.read_report` reads a ledger that
stands still. Whoever serves the page live feeds a `View` and answers these, each a path beside the page, with what the
page's own address has behind its `?` (a token, say) passed on by its script:

GET  ./        `page(None, live=Live(...))`: the whole page; its data is asked for.
GET  ./view    JSON: `encoding.encoded(View.summary(...))`.
GET  ./rows?since=N   JSON: `encoded(View.rows(N))`; 0: all rows. What it answers is of `revision`: the next one begins
               there.
GET  ./events  Server-sent events, each `data: {"revision": N, "generation": G, "look": L}` in one line: there is
               something new, in the ledger or beside it (its process has gone); `look` is another number each time,
               from 1. The first at once. The browser then asks for `view` and `rows`, at most once a second; in another
               `generation` it forgets all rows. `event: gone` says that nothing will come any more.
POST ./stop    with the header `X-Promptferry: stop`, where `Live.stop` is set: as one SIGINT. 2xx: asked for.
               The text of any other answer is shown.

`encoded` also writes what orjson alone cannot: names with half a character, and numbers of any size.
"""
