; L08: errors add up, whatever depends on what: P(A or B) <= P(A) + P(B), over every joint distribution.
; And a sum is over its bound only when a part is over its own, so latency bounds compose together with their errors.
; code: plans.compose
(set-logic ALL)
(declare-const p00 Real) (declare-const p01 Real) (declare-const p10 Real) (declare-const p11 Real)
(define-fun distribution () Bool (and (>= p00 0.0) (>= p01 0.0) (>= p10 0.0) (>= p11 0.0) (= (+ p00 p01 p10 p11) 1.0)))
(push 1) ; expect unsat: union bound
(assert distribution)
(assert (not (<= (+ p01 p10 p11) (+ (+ p10 p11) (+ p01 p11)))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: a sum, or the longer of two, over the bound means a part over its bound
(declare-const x Real) (declare-const y Real) (declare-const b Real) (declare-const d Real)
(assert (not (or (> x b) (> y d))))
(assert (or (> (+ x y) (+ b d)) (> (ite (> x y) x y) (ite (> b d) b d))))
(check-sat)
(pop 1)
(push 1) ; expect sat: the product of availabilities is no bound without independence
(assert distribution)
(assert (and (= (+ p10 p11) 0.01) (= (+ p01 p11) 0.01)))
(assert (< p00 (* 0.99 0.99)))
(check-sat)
(pop 1)
