import { Empty, useTitle } from "../parts/small.tsx";
import { Link } from "../router.ts";

export function NotFoundPage() {
  useTitle("Not found");
  return (
    <section className="page narrow" data-testid="not-found">
      <h1>There is no such page</h1>
      <Empty title="The address leads nowhere.">
        The id of a command has 26 digits and capital letters. <Link to="/">All commands</Link>
      </Empty>
    </section>
  );
}
