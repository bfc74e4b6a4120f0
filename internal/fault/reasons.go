package fault

// The reasons. They are part of the API: a name is never changed or reused.
const (
	// Of calls.
	ReasonInternal         = "INTERNAL"          // a defect of the service
	ReasonInvalidRequest   = "INVALID_REQUEST"   // a field breaks a rule
	ReasonEmptyCommand     = "EMPTY_COMMAND"     // no command line and no argv
	ReasonCommandTooLong   = "COMMAND_TOO_LONG"  // over the limit of execve
	ReasonMissingHost      = "MISSING_HOST"      // no host and no session
	ReasonUnknownHost      = "UNKNOWN_HOST"      // no such host
	ReasonUnknownCommand   = "UNKNOWN_COMMAND"   // no command with this id
	ReasonUnknownSession   = "UNKNOWN_SESSION"   // no session with this name
	ReasonRequestIDReused  = "REQUEST_ID_REUSED" // same id, other content
	ReasonBadPageToken     = "BAD_PAGE_TOKEN"    // not a token of this list
	ReasonOffsetBeyondEnd  = "OFFSET_BEYOND_END" // the stream ended before
	ReasonEventsUnknown    = "EVENTS_UNKNOWN"    // no change has this number yet
	ReasonNotRunning       = "NOT_RUNNING"       // nothing to signal or write to
	ReasonStdinClosed      = "STDIN_CLOSED"      // input was not asked for, or has ended
	ReasonInputBusy        = "INPUT_BUSY"        // the command does not read its input
	ReasonQueueFull        = "QUEUE_FULL"        // too many waiting
	ReasonDraining         = "DRAINING"          // the service shuts down
	ReasonStoreUnavailable = "STORE_UNAVAILABLE" // the store failed or is closed
	ReasonStoreDamaged     = "STORE_DAMAGED"     // stored data is not what was written
	ReasonOutputTrimmed    = "OUTPUT_TRIMMED"    // retention removed the bytes asked for
	ReasonNotSupported     = "NOT_SUPPORTED"     // this build or host cannot
	ReasonNoCredentials    = "NO_CREDENTIALS"    // no bearer token
	ReasonBadCredentials   = "BAD_CREDENTIALS"   // unknown bearer token
	ReasonForbiddenOrigin  = "FORBIDDEN_ORIGIN"  // Host or Origin not allowed
	ReasonCallCancelled    = "CALL_CANCELLED"    // the caller went away
	ReasonCallDeadline     = "CALL_DEADLINE"     // the call's own deadline
	ReasonUnknownRoute     = "UNKNOWN_ROUTE"     // no such path or method
	ReasonSignalFailed     = "SIGNAL_FAILED"     // the host refused the signal

	// Of who may do what.
	ReasonTokenExpired      = "TOKEN_EXPIRED"      // the token is over
	ReasonTokenRevoked      = "TOKEN_REVOKED"      // the token was taken back
	ReasonIssuerUnavailable = "ISSUER_UNAVAILABLE" // the keys of who issued the token cannot be had
	ReasonRoleMissing       = "ROLE_MISSING"       // the caller's roles do not allow it
	ReasonAccessDenied      = "ACCESS_DENIED"      // not the caller's, or not there: that is not told
	ReasonPolicyDenied      = "POLICY_DENIED"      // a rule refuses the command
	ReasonRateLimited       = "RATE_LIMITED"       // too many calls
	ReasonTooManyStreams    = "TOO_MANY_STREAMS"   // too many open streams
	ReasonTooManyAwaiting   = "TOO_MANY_AWAITING"  // too many commands of the caller wait for approval
	ReasonAlreadyDecided    = "ALREADY_DECIDED"    // the approval is over
	ReasonNotYourDecision   = "NOT_YOUR_DECISION"  // somebody else must decide it
	ReasonRequestChanged    = "REQUEST_CHANGED"    // not the request that was shown
	ReasonUnknownApproval   = "UNKNOWN_APPROVAL"   // nothing of that name waits or has waited
	ReasonUnknownToken      = "UNKNOWN_TOKEN"      // no API key of that name
	ReasonTokenNameTaken    = "TOKEN_NAME_TAKEN"   // there is an API key of that name

	// Of sessions.
	ReasonSessionExists    = "SESSION_EXISTS"     // an open session has the name
	ReasonSessionEnded     = "SESSION_ENDED"      // it is over
	ReasonSessionBusy      = "SESSION_BUSY"       // another command runs in it
	ReasonTooManySessions  = "TOO_MANY_SESSIONS"  // too many are open
	ReasonTypingNotAllowed = "TYPING_NOT_ALLOWED" // the caller's roles do not allow to type
	ReasonKeyboardTaken    = "KEYBOARD_TAKEN"     // somebody else has the keyboard
	ReasonUnknownViewer    = "UNKNOWN_VIEWER"     // nobody of this id is attached
	ReasonNoKeeper         = "NO_KEEPER"          // the host does not have what was to keep the shell
	ReasonNotRecorded      = "NOT_RECORDED"       // there is no recording
	ReasonSessionGone      = "SESSION_GONE"       // the host does not have the shell any more
	ReasonShellExited      = "SHELL_EXITED"       // the shell ended by itself
	ReasonSessionClosed    = "SESSION_CLOSED"     // somebody closed it
	ReasonIdleTimeout      = "IDLE_TIMEOUT"       // nothing happened in it for too long
	ReasonLifetimeOver     = "LIFETIME_OVER"      // it was open for as long as it may be

	// Of tasks.
	ReasonUnknownTask   = "UNKNOWN_TASK"    // there is none of that id
	ReasonTaskNotEnded  = "TASK_NOT_ENDED"  // it runs still, or is being undone
	ReasonNothingToUndo = "NOTHING_TO_UNDO" // nothing was done, or nothing of it can be undone
	ReasonPersonNeeded  = "PERSON_NEEDED"   // only people may ask for it
	ReasonStepFailed    = "STEP_FAILED"     // a step has not completed, and nothing behind it ran
	ReasonExitStatus    = "EXIT_STATUS"     // a step's command has exited with another code than 0
	ReasonNoExitCode    = "NO_EXIT_CODE"    // what a step's command has come to was not told

	// Of secrets.
	ReasonSecretTooShort  = "SECRET_TOO_SHORT"  // redacting it would mask ordinary text
	ReasonSecretsTooLarge = "SECRETS_TOO_LARGE" // too much to redact
	ReasonSealBroken      = "SEAL_BROKEN"       // a sealed value cannot be opened

	// Of commands that did not run to their own end.
	ReasonHostUnreachable   = "HOST_UNREACHABLE"      // no route, name unknown to DNS, dial failed
	ReasonConnectTimeout    = "CONNECT_TIMEOUT"       // no answer within the limit
	ReasonConnectionRefused = "CONNECTION_REFUSED"    // nothing listens on the port
	ReasonHandshakeFailed   = "HANDSHAKE_FAILED"      // not SSH, or no common algorithm
	ReasonHostKeyUnknown    = "HOST_KEY_UNKNOWN"      // not in known_hosts
	ReasonHostKeyChanged    = "HOST_KEY_CHANGED"      // differs from known_hosts
	ReasonHostKeyRevoked    = "HOST_KEY_REVOKED"      // marked revoked in known_hosts
	ReasonAuthFailed        = "AUTHENTICATION_FAILED" // the server accepted no credential
	ReasonBadCredentialFile = "BAD_CREDENTIAL_FILE"   // key missing, unreadable, wrong passphrase
	ReasonJumpFailed        = "JUMP_FAILED"           // a hop on the way failed
	ReasonChannelRefused    = "CHANNEL_REFUSED"       // the server opens no session
	ReasonExecRefused       = "EXEC_REFUSED"          // the server refused to run it
	ReasonBadWorkingDir     = "BAD_WORKING_DIRECTORY" // cannot be entered
	ReasonStartFailed       = "START_FAILED"          // the host could not start it
	ReasonSignalled         = "SIGNALLED"             // a signal not sent by us
	ReasonConnectionLost    = "CONNECTION_LOST"       // the link of an attached run broke
	ReasonNoExitStatus      = "NO_EXIT_STATUS"        // the channel closed without a status
	ReasonOutputIncomplete  = "OUTPUT_INCOMPLETE"     // the exit is true, but output is missing
	ReasonServiceRestarted  = "SERVICE_RESTARTED"     // an attached run, the service ended
	ReasonNotDurable        = "NOT_DURABLE"           // the host cannot keep a command by itself
	ReasonNeverStarted      = "NEVER_STARTED"         // the host has seen to it that it never will
	ReasonHostRebooted      = "HOST_REBOOTED"         // the host was restarted while it ran
	ReasonRunRemoved        = "RUN_REMOVED"           // what the host kept of it was removed
	ReasonSupervisorKilled  = "SUPERVISOR_KILLED"     // what watched over it on the host was killed
	ReasonNoSpace           = "NO_SPACE"              // no space on the host to start it
	ReasonSudoRefused       = "SUDO_REFUSED"          // sudo did not let it start
	ReasonSuperseded        = "SUPERSEDED"            // another owner has the command by now
	ReasonTimeout           = "TIMEOUT"               // the caller's timeout
	ReasonQueueTimeout      = "QUEUE_TIMEOUT"         // waited too long in the queue
	ReasonCancelledByCaller = "CANCELLED_BY_CALLER"   // cancelled through the service
	ReasonCancelIncomplete  = "CANCEL_INCOMPLETE"     // ended by a cancel, but not all is proven gone
	ReasonRejected          = "REJECTED"              // an approver said no
	ReasonApprovalExpired   = "APPROVAL_EXPIRED"      // nobody decided in time
	ReasonApprovalVoid      = "APPROVAL_VOID"         // what would run is not what was approved

	// Of configuration.
	ReasonBadConfig         = "BAD_CONFIG"         // the configuration has problems; the service does not start
	ReasonBadSSHConfig      = "BAD_SSH_CONFIG"     // ssh_config cannot be read; the service does not start
	ReasonBadSealKey        = "BAD_SEAL_KEY"       // the key of sealed values cannot be used; the service does not start
	ReasonHostMisconfigured = "HOST_MISCONFIGURED" // what is configured for a host cannot work
)
