/**
 * A list that is read page by page as it is gone through.
 *
 *     for await (const command of client.list({ active: true })) …
 */
export interface Pages<Item, Page> extends AsyncIterable<Item> {
  /** One page; without a token the first. The page has the token of the next. */
  page(token?: string): Promise<Page>;
}

/** pages makes a list of what gives one page. */
export function pages<Item, Page extends { readonly nextPageToken: string }>(
  page: (token: string) => Promise<Page>,
  items: (page: Page) => readonly Item[],
): Pages<Item, Page> {
  return {
    page: (token = "") => page(token),
    async *[Symbol.asyncIterator]() {
      let token = "";
      do {
        const p = await page(token);
        yield* items(p);
        token = p.nextPageToken;
      } while (token !== "");
    },
  };
}
