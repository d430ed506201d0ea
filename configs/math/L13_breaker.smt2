; L13: a breaker is open only after k failures in a row or a failed probe, and half-open with at most one probe.
; state 0 closed, 1 open, 2 half-open; f failures in a row; p probes out.
; code: control.Breaker
(set-logic ALL)
(declare-const st Int) (declare-const f Int) (declare-const p Int) (declare-const k Int)
(define-fun inv ((st Int) (f Int) (p Int)) Bool
  (and (>= st 0) (<= st 2) (>= f 0) (=> (= st 0) (and (< f k) (= p 0))) (=> (= st 1) (= p 0)) (=> (= st 2) (= p 1))))
(assert (>= k 1))
(assert (inv st f p))
(push 1) ; expect unsat: success, failure, failure that opens, cooldown over, probe ok, probe failed, probe given up for a new one
(assert (not (and (=> (= st 0) (inv 0 0 0))
                  (=> (and (= st 0) (< (+ f 1) k)) (inv 0 (+ f 1) 0))
                  (=> (and (= st 0) (>= (+ f 1) k)) (inv 1 (+ f 1) 0))
                  (=> (= st 1) (inv 2 f 1))
                  (=> (= st 2) (inv 0 0 0))
                  (=> (= st 2) (inv 1 f 0))
                  (=> (= st 2) (inv 2 f 1)))))
(check-sat)
(pop 1)
(push 1) ; expect sat: admitting while half-open as while closed lets a second probe out
(assert (= st 2))
(assert (not (inv 2 f (+ p 1))))
(check-sat)
(pop 1)
