; L04: gates only ever close. More forbid rules, fewer permit rules, higher labels, fewer scopes, tighter limits: none
; of these admits a service that was not admissible. And what is admitted has every scope, clearance, tag and capability.
; Sets are bit vectors of 64 elements; the lemma says nothing of more, the code uses sets of words.
; code: routing.first_failure, policies.failing_rule
(set-logic ALL)
(define-sort Bits () (_ BitVec 64))
(define-fun sub ((a Bits) (b Bits)) Bool (= (bvand a (bvnot b)) #x0000000000000000))
(define-fun able ((caps Bits) (scopes Bits) (level Int) (tags Bits) (trust Int) (cost Int) (late Int) (err Int)
                  (active Bool) (healthy Bool) (ccaps Bits) (cneeds Bits) (clevel Int) (ctags Bits) (ctrust Int) (ccost Int)
                  (clate Int) (cerr Int) (forbidden Bool) (permitted Bool)) Bool
  (and active healthy (sub caps ccaps) (sub cneeds scopes) (<= level clevel) (sub tags ctags) (>= ctrust trust)
       (<= ccost cost) (<= clate late) (<= cerr err) (not forbidden) permitted))
(declare-const caps Bits) (declare-const caps2 Bits) (declare-const ccaps Bits)
(declare-const scopes Bits) (declare-const scopes2 Bits) (declare-const cneeds Bits)
(declare-const tags Bits) (declare-const tags2 Bits) (declare-const ctags Bits)
(declare-const level Int) (declare-const level2 Int) (declare-const clevel Int)
(declare-const trust Int) (declare-const trust2 Int) (declare-const ctrust Int)
(declare-const cost Int) (declare-const cost2 Int) (declare-const ccost Int)
(declare-const late Int) (declare-const late2 Int) (declare-const clate Int)
(declare-const err Int) (declare-const err2 Int) (declare-const cerr Int)
(declare-const active Bool) (declare-const healthy Bool)
(declare-const f Bool) (declare-const g Bool) (declare-const p Bool) (declare-const q Bool)
(define-fun with ((forbidden Bool) (permitted Bool)) Bool
  (able caps scopes level tags trust cost late err active healthy ccaps cneeds clevel ctags ctrust ccost clate cerr forbidden permitted))
(push 1) ; expect unsat: another forbid rule, or a permit rule less, admits nothing new
(assert (not (and (=> (with (or f g) p) (with f p)) (=> (with f p) (with f (or p q))))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: asking for more, or being allowed less, admits nothing new
(assert (and (sub caps caps2) (sub scopes2 scopes) (>= level2 level) (sub tags tags2) (>= trust2 trust) (<= cost2 cost)
             (<= late2 late) (<= err2 err)))
(assert (able caps2 scopes2 level2 tags2 trust2 cost2 late2 err2 active healthy ccaps cneeds clevel ctags ctrust ccost clate cerr f p))
(assert (not (with f p)))
(check-sat)
(pop 1)
(push 1) ; expect unsat: default deny, forbid wins, every single element is held
(declare-const bit Bits)
(assert (with f p))
(assert (or f (not p) (not active) (not healthy) (< clevel level)
            (and (not (= (bvand bit cneeds) #x0000000000000000)) (= (bvand bit cneeds) bit) (= (bvand bit scopes) #x0000000000000000))
            (and (not (= (bvand bit caps) #x0000000000000000)) (= (bvand bit caps) bit) (= (bvand bit ccaps) #x0000000000000000))))
(check-sat)
(pop 1)
(push 1) ; expect sat: with "some scope in common" in the place of inclusion a needed scope may be missing
(assert (not (= (bvand cneeds scopes) #x0000000000000000)))
(assert (not (sub cneeds scopes)))
(check-sat)
(pop 1)
