// Filters of a list, which the URL has.

import { useEffect, useState, type ReactNode } from "react";
import { dateOf } from "../format.ts";
import { navigate, placeNow, usePlace, withQuery } from "../router.ts";

/** The filters of a page, which are these parameters of its URL; acts stand behind them. */
export function FilterForm({ of, params, children, acts }: { of: string; params: readonly string[]; children: ReactNode; acts?: ReactNode }) {
  const place = usePlace();
  const [open, setOpen] = useState(false); // on a phone, where they would fill the screen
  const used = params.filter((name) => (place.query.get(name) ?? "") !== "").length;
  return (
    <form className={open ? "filters open" : "filters"} role="search" aria-label={`Filter ${of}`} onSubmit={(event) => event.preventDefault()}>
      <button type="button" className="filters-open" aria-expanded={open} onClick={() => setOpen(!open)}>
        Filter{used > 0 && ` · ${used}`}
      </button>
      {children}
      <button type="button" className="quiet" disabled={used === 0} onClick={() => navigate(place.path)}>
        Clear
      </button>
      {acts}
    </form>
  );
}

// TextFilter changes the URL when the typing pauses.
export function TextFilter({ name, param, hint = "" }: { name: string; param: string; hint?: string }) {
  const place = usePlace();
  const current = place.query.get(param) ?? "";
  const [text, setText] = useState(current);
  const [seen, setSeen] = useState(current);
  if (seen !== current) {
    setSeen(current);
    if (text.trim() !== current) setText(current);
  }
  useEffect(() => {
    if (text.trim() === current) return undefined;
    // The other filters may have changed by then.
    const later = setTimeout(() => navigate(withQuery(placeNow(), { [param]: text.trim() }), { replace: true }), 300);
    return () => clearTimeout(later);
  }, [text, current, param]);
  return (
    <label>
      {name}
      <input value={text} placeholder={hint === "" ? "any" : hint} spellCheck={false} autoCapitalize="none" data-testid={`filter-${param}`} onChange={(event) => setText(event.target.value)} />
    </label>
  );
}

// The URL has the time with its zone, so that a link means the same everywhere.
export function TimeFilter({ name, param }: { name: string; param: string }) {
  const place = usePlace();
  const text = place.query.get(param) ?? "";
  const at = text === "" ? undefined : dateOf(text);
  const local = at === undefined ? "" : new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  return (
    <label>
      {name}
      <input
        type="datetime-local"
        value={local}
        onChange={(event) => {
          // A year is typed digit by digit: 0002 is none yet.
          const chosen = event.target.value === "" ? undefined : dateOf(event.target.value);
          if (chosen !== undefined || event.target.value === "") navigate(withQuery(place, { [param]: chosen?.toISOString() ?? "" }), { replace: true });
        }}
      />
    </label>
  );
}
