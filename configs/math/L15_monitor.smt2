; L15: each bet of the monitor has mean at most 1 under what it bets against, so its capital is a supermartingale, and by
; Ville's inequality it ever reaches 1/alpha with probability at most alpha. Both sides are multiplied by e (1 - e).
; p: rate of broken calls; e: promised rate; b: rate bet on. Rounding down only lowers capital.
; code: control.Monitor
(set-logic ALL)
(declare-const p Real) (declare-const e Real) (declare-const b Real)
(assert (and (< 0.0 e) (< e 1.0) (<= 0.0 p) (<= p 1.0) (< 0.0 b) (< b 1.0)))
(define-fun mean () Real (+ (* p b (- 1.0 e)) (* (- 1.0 p) (- 1.0 b) e)))
(push 1) ; expect unsat: against the promise, while it holds
(assert (and (<= p e) (>= b e)))
(assert (not (<= mean (* e (- 1.0 e)))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: in favour, while it is broken
(assert (and (>= p e) (<= b e)))
(assert (not (<= mean (* e (- 1.0 e)))))
(check-sat)
(pop 1)
(push 1) ; expect sat: betting on the other side gains from an honest service
(assert (and (< p e) (< b e)))
(assert (not (<= mean (* e (- 1.0 e)))))
(check-sat)
(pop 1)
