; L12: spent and held together never exceed the limit, under reserve, commit, release and expire.
; x: what one call holds, part of held.
; code: control.Budget
(set-logic ALL)
(declare-const limit Int) (declare-const spent Int) (declare-const held Int) (declare-const x Int) (declare-const cost Int)
(define-fun inv ((s Int) (h Int)) Bool (and (>= s 0) (>= h 0) (<= (+ s h) limit)))
(define-fun counted () Int (ite (< cost 0) 0 (ite (< cost x) cost x)))
(assert (inv spent held))
(assert (>= x 0))
(push 1) ; expect unsat
(assert (not (and (=> (<= (+ spent held x) limit) (inv spent (+ held x)))
                  (=> (<= x held) (inv (+ spent counted) (- held x)))
                  (=> (<= x held) (inv spent (- held x)))
                  (=> (<= x held) (inv (+ spent x) (- held x))))))
(check-sat)
(pop 1)
(push 1) ; expect sat: committing what a call says it cost, however much, overdraws
(assert (<= x held))
(assert (not (inv (+ spent cost) (- held x))))
(check-sat)
(pop 1)
