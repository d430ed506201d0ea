; L14: whoever waits for publishing + staleness + lease + 1 after draining was decided retires a service no call is at.
; A router may call while its snapshot is at most `stale` old; a snapshot asked for once draining took effect names it
; draining.
; code: contracts.retire_after_ms
(set-logic ALL)
(declare-const decided Int) (declare-const effective Int) (declare-const publish Int) (declare-const asked Int)
(declare-const called Int) (declare-const stale Int) (declare-const lease Int) (declare-const ends Int) (declare-const retired Int)
(assert (and (<= decided effective) (<= effective (+ decided publish))))
(assert (<= asked effective))
(assert (and (<= asked called) (<= called (+ asked stale))))
(assert (and (<= called ends) (<= ends (+ called lease))))
(push 1) ; expect unsat
(assert (>= retired (+ decided publish stale lease 1)))
(assert (<= retired ends))
(check-sat)
(pop 1)
(push 1) ; expect sat: 1 ms less is too short
(assert (and (>= publish 0) (>= stale 0) (>= lease 1)))
(assert (>= retired (+ decided publish stale lease)))
(assert (<= retired ends))
(check-sat)
(pop 1)
(push 1) ; expect sat: so is a wait that forgets how long publishing takes
(assert (and (> publish 0) (>= stale 0) (>= lease 1)))
(assert (>= retired (+ decided stale lease 1)))
(assert (<= retired ends))
(check-sat)
(pop 1)
