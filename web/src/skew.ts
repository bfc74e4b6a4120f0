// How far two clocks are apart.

/**
 * By how many milliseconds the clock of the service is ahead; what was known before stays where the new measure could be
 * no better, so that no duration jumps.
 */
export function aheadBy(before: number, service: number, sent: number, received: number): number {
  const measured = service - (sent + received) / 2;
  return Math.abs(measured - before) > Math.max(1000, (received - sent) / 2) ? Math.round(measured) : before;
}
