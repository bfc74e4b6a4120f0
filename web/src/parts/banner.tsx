// How the connection to the service is, told where it is not as it should be. It lies over the page, so that nothing
// moves when it comes and goes.

import { useEffect, useState } from "react";
import { client, useConnection } from "../client.ts";
import { useNow } from "../clock.ts";

/** A loss that is mended at once is not worth a word. */
const PATIENCE = 400;

export function ConnectionBanner() {
  const connection = useConnection();
  const { state } = connection;
  const troubled = state === "reconnecting" || state === "polling";
  const [shown, setShown] = useState(false);
  useEffect(() => {
    if (!troubled) {
      setShown(false);
      return undefined;
    }
    const later = setTimeout(() => setShown(true), PATIENCE);
    return () => clearTimeout(later);
  }, [troubled]);
  const now = useNow(troubled);
  const next = connection.retryAt === undefined ? 0 : Math.max(0, Math.ceil((connection.retryAt.getTime() - now) / 1000));
  return (
    <div
      className={shown ? "banner shown" : "banner"}
      data-testid="connection-banner"
      data-state={troubled ? state : "live"}
    >
      {/* What is spoken does not count the seconds. */}
      <p role="status">
        {shown && state === "reconnecting" && "The connection to the service is lost; it is being made again. Commands go on."}
        {shown && state === "polling" && "WebSocket is blocked between here and the service: this page asks every few seconds."}
      </p>
      {shown && state === "reconnecting" && (
        <span className="tabular">
          attempt {Math.max(1, connection.attempt)}
          {next > 0 && `, next in ${next} s`}
        </span>
      )}
      {shown && state === "reconnecting" && (
        <button type="button" onClick={() => client.retryNow()}>
          Retry now
        </button>
      )}
    </div>
  );
}
